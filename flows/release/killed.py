"""Procedures of this machine that were killed, seen without a database.

While its process lives, a procedure holds the lock of a file of its own, and its end removes the file: one that is
there and not locked says that somebody must look.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.core import locks
from flows.settings import Settings


@contextmanager
def held(settings: Settings, identifier: str) -> Iterator[None]:
    """Hold a procedure's mark; it stays, unlocked, unless it is removed before the end."""
    place = mark(settings, identifier)
    place.parent.mkdir(parents=True, exist_ok=True)
    with locks.held(place):
        yield


def unmark(settings: Settings, identifier: str) -> None:
    """Remove the mark of a procedure that has ended."""
    mark(settings, identifier).unlink(missing_ok=True)


def mark(settings: Settings, identifier: str) -> Path:
    """The file of a procedure."""
    return settings.home / "procedures" / identifier


def left_behind(settings: Settings) -> list[str]:
    """The procedures of this machine whose process died."""
    return sorted(path.name for path in mark(settings, "").glob("*") if path.is_file() and _dead(path))


def _dead(path: Path) -> bool:
    with suppress(FileNotFoundError):  # it has just ended
        return not locks.is_held(path)
    return False
