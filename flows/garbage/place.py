"""Garbage, its kinds and the place that it is found in; paths are removed without leaving the home."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.core.params import UserError
from flows.settings import Settings


@dataclass(frozen=True)
class Garbage:
    """One thing that nothing reaches."""

    kind: str  # "worktree", "cache object", ...
    what: str  # its path, or its key in the bucket
    bytes: int  # what its removal frees: files that have other links count nothing
    why: str


class InTheWay(Exception):
    """This kind cannot be collected now; the text says what is in the way."""


@dataclass(frozen=True)
class Place:
    """The project as a collection sees it.

    `now` is the time that the home's file system gives a new file, so that ages are differences of one clock
    whichever machine asks. What is younger than `grace` seconds is nobody's garbage yet: it may be being made.
    """

    settings: Settings
    living: frozenset[str]  # runs that work now
    now: float
    grace: float

    def old(self, stamp: float) -> bool:
        """Whether `stamp` is past the grace period; a stamp from the future is not."""
        return self.now - stamp >= self.grace


@contextmanager
def alone(place: Place) -> Iterator[None]:
    """A guard that is InTheWay while a run works: what it is about to refer to cannot be known."""
    if place.living:
        raise InTheWay(f"run {', '.join(sorted(place.living))} is working; again when it has ended")
    yield


@dataclass(frozen=True)
class Kind:
    """One kind of garbage; without a guard it is found whatever works meanwhile."""

    name: str
    find: Callable[[Place], Iterator[Garbage]]
    delete: Callable[[Place, Garbage], None]
    guard: Callable[[Place], AbstractContextManager[Any]] = nullcontext  # held while it is found and removed


def survey(settings: Settings, living: set[str], grace: float) -> Place:
    probe = settings.worktrees / ".now"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    return Place(settings, frozenset(living), now, grace)


def files(folder: Path) -> Iterator[Path]:
    """Every file and link below a folder; links are not followed."""
    for parent, folders, names in os.walk(folder, followlinks=False):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        yield from (Path(parent, name) for name in [*names, *links])


def size(path: Path) -> int:
    """Bytes that the removal of a file or folder frees."""
    total = 0
    for file in files(path) if _is_folder(path) else [path]:
        with suppress(FileNotFoundError):
            found = file.lstat()
            total += found.st_size if found.st_nlink == 1 else 0
    return total


def newest(path: Path) -> float:
    """When a file, or anything below a folder, was last written."""
    stamps = [path.lstat().st_mtime]
    for file in files(path) if _is_folder(path) else ():
        with suppress(FileNotFoundError):
            stamps.append(file.lstat().st_mtime)
    return max(stamps)


def inside(path: Path, home: Path) -> bool:
    """Whether `path` lies in `home` without a link on the way; the last part itself may be a link."""
    parent = path.parent.resolve()
    return parent.is_relative_to(home.resolve()) and parent == home.resolve() / path.parent.relative_to(home)


def remove(path: Path, home: Path) -> None:
    """Remove a file, a link (never what it points to) or a folder below `home`; what is gone already is fine."""
    if ".." in path.parts or not path.is_relative_to(home) or path == home or not inside(path, home):
        raise UserError(f"{path} leads out of {home}: it was left alone; remove it by hand if it is not needed")
    if _is_folder(path):
        shutil.rmtree(path)  # follows no link
    else:
        path.unlink(missing_ok=True)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
