"""Receiving a file of known size and digest: resumed where it broke, bounded while it arrives, verified at the end."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from data.core.files import sync
from data.core.params import UserError
from flows.storage.protocol import Watch

CHUNK = 1 << 20  # bytes
ATTEMPTS = 5  # in a row without a single new byte

Source = Callable[[int], Iterator[bytes]]  # the object's bytes from an offset on


class Broken(Exception):
    """The transfer stopped for a reason that may pass; the message says which."""


class WrongContent(UserError):
    """What arrived whole is not what was announced: another transfer would bring the same."""


def receive(
    source: Source,
    path: Path,
    size: int,
    expected: str,
    what: str,
    watch: Watch | None = None,
    algorithm: str = "sha256",
) -> None:
    """Bring what `source` holds to `path`. Until it is verified it is called `<path>.partial`.

    what: the object, for messages. Raises UserError if there are more or fewer bytes than `size`, or others than
    the digest `expected`; then nothing is left behind. After any other error the partial file stays and the next
    call goes on.
    """
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    tell = watch or (lambda count: None)
    resumed = partial.exists()
    found = _fill(source, partial, size, what, tell, algorithm)
    if found != expected and resumed:  # the old part may be of another object, or the disk lost some of it
        partial.unlink()
        tell(-size)
        found = _fill(source, partial, size, what, tell, algorithm)
    if found != expected:
        partial.unlink()
        raise WrongContent(
            f"{what} has the wrong content: expected {algorithm} {expected}, found {found}; nothing was installed. "
            "Publish it again, or find out who changed it"
        )
    os.replace(partial, path)  # noqa: PTH105
    sync(path.parent)


def _fill(source: Source, partial: Path, size: int, what: str, tell: Watch, algorithm: str) -> str:
    """Complete the partial file and return its digest."""
    digest, have = hashlib.new(algorithm, usedforsecurity=False), 0
    with partial.open("a+b") as file:
        file.seek(0)
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            have += len(chunk)
        if have > size:  # of something else
            file.truncate(0)
            digest, have = hashlib.new(algorithm, usedforsecurity=False), 0
        tell(have)
        stalled = 0
        while have < size:
            before = have
            try:
                for chunk in source(have):
                    if have + len(chunk) > size:
                        file.truncate(0)
                        raise UserError(
                            f"{what} has more bytes than the {size} announced; nothing was installed. Publish it again"
                        )
                    file.write(chunk)
                    digest.update(chunk)
                    have += len(chunk)
                    tell(len(chunk))
                if have < size:
                    raise Broken(f"the answer ended after {have} of {size} bytes")
            except Broken as error:
                stalled = 1 if have > before else stalled + 1
                if stalled >= ATTEMPTS:
                    raise UserError(f"{what}: {error}, {ATTEMPTS} times in a row; run again to go on there") from None
                wait(stalled)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def announced(what: str, size: int, there: int, sha256: str, found: str) -> None:
    """WrongContent unless an object has the size and digest that were announced; both "" for its size alone."""
    if there != size:
        raise WrongContent(f"{what} was changed: expected {size} bytes, found {there}")
    if found != sha256:
        raise WrongContent(f"{what} was changed: expected sha256 {sha256}, found {found}; publish it again")


def wait(attempt: int) -> None:
    """Sleep before the next attempt: longer each time, and not in step with others."""
    time.sleep(random.uniform(0, min(5.0, 0.2 * 2**attempt)))
