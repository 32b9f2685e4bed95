"""Worktrees, and what runs, downloads, gates and reproductions need only while they work, of those that were killed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from flows.garbage.place import Garbage, Kind, Place, newest, remove, size
from flows.pipeline import workspace

UNFINISHED = (".partial", ".new", ".tmp")
UPLOADED = re.compile(r"\..+\.[0-9a-f]{32}")  # how a bucket in a folder calls a file that is not whole yet
OTHERS = ("checkpoints", "dvc", "evaluations", "mlflow", "prefect", "production", "reproductions", "worktrees")
PROOFS = re.compile(r"cache|checkpoints|environment\.json|tmp\w+")  # of a reproduction; its logs stay


def worktrees(place: Place) -> Iterator[Garbage]:
    """A worktree is dead or alive by its lock; what a killed run left beside it goes too."""
    folder = place.settings.worktrees
    dead = {path.name for path in workspace.dead(place.settings)}
    for name in sorted(dead):
        path = folder / name
        freed = size(path) + size(workspace.index_folder(path)) if path.is_dir() else 0
        yield Garbage("worktree", str(path), freed, "its run was killed")
    for path in sorted(folder.iterdir()):
        run = path.name.partition(".")[0]
        if run and run not in dead | place.living and place.old(newest(path)):
            yield Garbage("worktree", str(path), size(path), "no run of that name works here")


def remove_worktree(place: Place, item: Garbage) -> None:
    path = place.settings.worktrees / item.what.rpartition("/")[2]
    if path in workspace.dead(place.settings):
        workspace.remove_dead(place.settings, path)
    else:
        remove(path, place.settings.home)


def find(place: Place) -> Iterator[Garbage]:
    home = place.settings.home
    for paths, why in (
        (_unfinished(home), "written in part and left"),
        (_children(home, "gates-*"), "its gate was killed"),
        (_children(home / "evaluations", "*"), "an evaluation for a gate, which can be repeated"),
        (_reproductions(home), "nobody went on with its reproduction"),
    ):
        for path in paths:
            if not _of_the_living(path, place) and place.old(newest(path)):
                yield Garbage("scratch", str(path), size(path), why)


def delete(place: Place, item: Garbage) -> None:
    remove(Path(item.what), place.settings.home)


KINDS = (Kind("worktree", worktrees, remove_worktree), Kind("scratch", find, delete))


def _unfinished(home: Path) -> Iterator[Path]:
    """Files and folders under names that are given up when they are whole, wherever no other kind looks."""
    for top in _children(home, "*"):
        if top.name.endswith(UNFINISHED):
            yield top
        elif top.name not in OTHERS:
            yield from _named(top, lambda name: name.endswith(UNFINISHED))
    yield from _named(home / "production", lambda name: bool(UPLOADED.fullmatch(name)))


def _named(folder: Path, fits: Callable[[str], bool]) -> Iterator[Path]:
    """What has such a name below a folder; links are not followed, and what fits is not looked into."""
    for parent, folders, names in os.walk(folder) if not folder.is_symlink() else ():
        yield from (Path(parent, name) for name in sorted([*folders, *names]) if fits(name))
        folders[:] = [name for name in folders if not fits(name)]


def _reproductions(home: Path) -> Iterator[Path]:
    for folder in _children(home / "reproductions", "*"):
        yield from (path for path in _children(folder, "*") if PROOFS.fullmatch(path.name))


def _children(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern)) if folder.is_dir() and not folder.is_symlink() else []


def _of_the_living(file: Path, place: Place) -> bool:
    """Whether a run that works now has its id in the path; a reproduction is a run too."""
    return not place.living.isdisjoint(file.relative_to(place.settings.home).parts)
