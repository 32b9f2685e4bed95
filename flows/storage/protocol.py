"""What a bucket of immutable files is, a folder or S3, under the same rules.

    key      is relative, of plain characters, and can never leave the bucket
    create   makes a small object or raises Taken: of many writers of one key exactly one wins
    upload   stores a file under a key for good, and says so if other bytes are there already
    download brings exactly the announced bytes or nothing; a broken one goes on where it stopped

Whatever the store does wrong is a UserError that names the bucket, the operation and the next step. No message
holds a secret: credentials come from the environment, and servers are quoted by their error codes alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from data.core.params import UserError

SMALL = 4 << 20  # bytes: pointers, manifests and configurations are far smaller
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+=-]{0,127}")  # no leading dot: those are a folder's temporary files
LONGEST = 512  # characters of a key

Watch = Callable[[int], None]  # told of bytes as they arrive; negative where they had to be thrown away


class Taken(UserError):
    """Somebody else has created this key."""


class NotThere(UserError):
    """The bucket holds no such key."""


class Denied(UserError):
    """The store refuses these credentials: no patience helps."""


class Bucket(Protocol):
    """What `folder.FolderBucket` and `s3.S3Bucket` do."""

    name: str  # for messages: the folder or s3://bucket/prefix

    def read(self, key: str, limit: int = SMALL) -> bytes:
        """The content of a small object; NotThere, or UserError if it has more than `limit` bytes."""

    def create(self, key: str, data: bytes) -> None:
        """Make an object that is not there yet, whole and durable; Taken if it is there."""

    def replace(self, key: str, data: bytes) -> None:
        """Write a small object over what is there, whole: for what only tells how things stand. Nothing published."""

    def upload(self, key: str, path: Path, sha256: str = "") -> None:
        """Store a file, verified; nothing is done if the same bytes are there, UserError if others are.

        sha256: what the file must have, "" for whatever it has.
        """

    def download(self, key: str, path: Path, size: int, sha256: str, watch: Watch | None = None) -> None:
        """Bring an object to `path`, whole or not at all; a broken download is kept as `<path>.partial`."""

    def verify(self, key: str, size: int, sha256: str = "") -> None:
        """NotThere or WrongContent unless an object has so many bytes, with a digest just these: it is read then."""

    def list(self, prefix: str) -> list[str]:
        """All keys that begin with `prefix`, sorted."""

    def delete(self, key: str) -> None:
        """Remove an object that nothing reaches; none there is fine."""


def check_key(key: str) -> str:
    """The key itself; UserError unless it is relative and each of its parts is a plain name."""
    if len(key) > LONGEST or not all(PART.fullmatch(part) for part in key.split("/")):
        shown = key if len(key) <= 80 else f"{key[:80]}..."
        raise UserError(
            f"{shown!r} is not a key of a bucket: names of letters, digits and _.@+=-, joined by /, "
            f"{LONGEST} characters at most"
        )
    return key
