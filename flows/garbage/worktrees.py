"""Worktrees of runs that were killed, and what such a run left beside its worktree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from flows.garbage.place import Garbage, Place, newest, remove, size
from flows.pipeline import workspace

KIND = "worktree"


def guard(place: Place) -> AbstractContextManager[None]:
    """A worktree is dead or alive by its lock, whatever other runs do."""
    return nullcontext()


def find(place: Place) -> Iterator[Garbage]:
    folder = place.settings.worktrees
    dead = {path.name for path in workspace.dead(place.settings)}
    for name in sorted(dead):
        path = folder / name
        freed = size(path) + size(workspace.index_folder(path)) if path.is_dir() else 0
        yield Garbage(KIND, str(path), freed, "its run was killed")
    for path in sorted(folder.iterdir()):
        run = path.name.partition(".")[0]
        if run and run not in dead | place.living and place.old(newest(path)):
            yield Garbage(KIND, str(path), size(path), "no run of that name works here")


def delete(place: Place, item: Garbage) -> None:
    path = place.settings.worktrees / item.what.rpartition("/")[2]
    if path in workspace.dead(place.settings):
        workspace.remove_dead(place.settings, path)
    else:
        remove(path, place.settings.home)
