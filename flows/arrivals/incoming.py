"""Where photographs arrive: a folder, or a prefix in S3. It is only read; nothing there is moved or removed.

A name is text and never becomes a path: it may hold spaces, newlines, any Unicode, or `../`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data.core.params import UserError
from flows.settings import Settings
from flows.storage import bucket
from flows.storage.protocol import NotThere
from flows.storage.s3 import S3Bucket
from flows.storage.transfer import CHUNK, Broken

VARIABLE = "REMINT_INCOMING"


@dataclass(frozen=True)
class Item:
    """A file that lies there. Its stamp changes whenever its bytes do; the reverse is not promised."""

    name: str  # for people and JSON: bytes that are no Unicode are written as \\x..
    key: str  # what the place calls it
    size: int
    stamp: str


class Unfetched(Exception):
    """Why a file could not be read, in a few words; the next look may find it otherwise."""


class Nothing(UserError):
    """A prefix in S3 under which nothing lies: it is empty, was removed, or is a mistake in the variable."""


class Incoming(Protocol):
    """What `FolderIncoming` and `S3Incoming` do. A place that cannot be listed or read is a UserError."""

    name: str  # for messages and the record

    def items(self) -> Iterator[Item]:
        """Everything that lies there, by name."""

    def fetch(self, item: Item, path: Path) -> None:
        """Bring a file's bytes to `path`; Unfetched if it has gone, changes just now, or is no file."""


def open(settings: Settings) -> Incoming:
    """The place that REMINT_INCOMING names."""
    address = settings.incoming
    if not address:
        raise UserError(f"{VARIABLE} names no place to watch: set it to a folder or s3://bucket/prefix")
    if "://" not in address:
        return FolderIncoming(settings.root / Path(address).expanduser())
    found = bucket.at(address, VARIABLE)  # its checks of the address
    assert isinstance(found, S3Bucket)
    return S3Incoming(found.bucket, found.prefix.rstrip("/"), variable=VARIABLE)


class FolderIncoming:
    """A folder with everything below it. Names that begin with a dot are files in the making."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, str(root)

    def items(self) -> Iterator[Item]:
        if not self.root.is_dir():
            raise UserError(f"{VARIABLE}={self.root}: there is no such folder; create it, or correct the variable")
        for folder, inner, names in os.walk(self.root, onerror=_unreadable):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                if name.startswith("."):
                    continue
                path = Path(folder, name)
                try:
                    about = path.stat()
                except OSError:  # a link to nothing, or gone meanwhile
                    continue
                key = path.relative_to(self.root).as_posix()
                yield Item(_printable(key), key, about.st_size, stamp(about))

    def fetch(self, item: Item, path: Path) -> None:
        try:  # a pipe would make the reader wait for ever
            file = os.open(self.root / item.key, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Unfetched("has gone") from None
        except OSError as error:
            raise Unfetched(f"cannot be read ({error.strerror}); correct its permissions") from None
        with os.fdopen(file, "rb") as source, path.open("wb") as copy:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise Unfetched("is not a regular file")
            while chunk := source.read(CHUNK):
                copy.write(chunk)
            if stamp(os.fstat(file)) != item.stamp:
                raise Unfetched("changes while it is read")


class S3Incoming(S3Bucket):
    """A prefix in S3: what lies under it, at any depth."""

    def items(self) -> Iterator[Item]:
        """`Nothing` if nothing lies there, not even the empty object that marks a folder."""
        found = False
        with self._explained("list", ""):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix):
                for entry in page.get("Contents", []):
                    found = True
                    key = entry["Key"]
                    if not key.endswith("/"):  # else a folder, as web pages make them
                        yield Item(
                            key.removeprefix(self.prefix), key, entry["Size"], f"{entry['ETag']} {entry['Size']}"
                        )
        if not found:
            raise Nothing(
                f"{VARIABLE}={self.name}: nothing lies under this prefix any more; correct the variable, or, if it is "
                f"meant to be empty, put an empty object {self.prefix or 'of any name that ends with /'} there"
            )

    def fetch(self, item: Item, path: Path) -> None:
        try:
            with self._explained("read", item.name):
                answer: Any = self._client.get_object(Bucket=self.bucket, Key=item.key)
                with path.open("wb") as copy:
                    for chunk in answer["Body"].iter_chunks(CHUNK):
                        copy.write(chunk)
        except NotThere:
            raise Unfetched("has gone") from None
        except Broken as error:
            raise Unfetched(str(error)) from None


def _unreadable(error: OSError) -> None:
    raise UserError(f"{VARIABLE}: {error.filename} cannot be read ({error.strerror}); correct its permissions")


def stamp(about: os.stat_result) -> str:
    """Nobody can set the time of a file's last change, `ctime`, by hand."""
    return f"{about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"


def _printable(name: str) -> str:
    """A name as valid Unicode, which JSON and parquet need."""
    return name.encode("utf-8", "backslashreplace").decode()
