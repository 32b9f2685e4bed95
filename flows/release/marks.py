"""A file for each procedure of this machine, locked while its process lives: what was killed shows without a database.

The operating system drops the lock when the process dies, however it dies. The end of a procedure removes its file;
one that is there and not locked says that somebody must look.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.settings import Settings


@contextmanager
def held(settings: Settings, identifier: str) -> Iterator[None]:
    """Hold a procedure's mark; it stays, unlocked, unless it is removed before the end."""
    mark = _path(settings, identifier)
    mark.parent.mkdir(parents=True, exist_ok=True)
    with mark.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove(settings: Settings, identifier: str) -> None:
    _path(settings, identifier).unlink(missing_ok=True)


def exists(settings: Settings, identifier: str) -> bool:
    return _path(settings, identifier).exists()


def left_behind(settings: Settings) -> list[str]:
    """The procedures of this machine whose process died."""
    return sorted(path.name for path in _path(settings, "").glob("*") if path.is_file() and _dead(path))


def _path(settings: Settings, identifier: str) -> Path:
    return settings.home / "procedures" / identifier


def _dead(mark: Path) -> bool:
    """Whether a mark is there and nobody holds it."""
    try:
        with mark.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, FileNotFoundError):
        return False
    return True
