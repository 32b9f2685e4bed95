"""Locks on files: the operating system drops one with the process that holds it, however that ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def take(path: Path, mode: str = "a", *, wait: bool = True, shared: bool = False) -> IO[str]:
    """The open file whose lock this process has until it closes the file or dies.

    mode: of opening it. shared: together with others that share it. BlockingIOError if another process keeps it and
    `wait` is false.
    """
    file = path.open(mode)
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Have the lock of a file, which is made where there is none; BlockingIOError as of `take`."""
    with take(path, wait=wait):
        yield


def is_held(path: Path) -> bool:
    """Whether a living process has the lock of a file; FileNotFoundError if there is none."""
    try:
        take(path, "r", wait=False).close()
    except BlockingIOError:
        return True
    return False
