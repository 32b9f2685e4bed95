"""Checkpoints of stages that were never gone on with: `checkpoints/<stage>-<digest of its inputs>` in the home."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.garbage.place import Garbage, Place, newest, remove, size

KIND = "checkpoint"
NAME = re.compile(r".+-[0-9a-f]{16}")


@contextmanager
def guard(place: Place) -> Iterator[None]:
    place.alone()
    yield


def find(place: Place) -> Iterator[Garbage]:
    folder = place.settings.home / "checkpoints"
    for path in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else ():
        if NAME.fullmatch(path.name) and place.old(newest(path)):
            yield Garbage(KIND, str(path), size(path), "no run works, and none has gone on from it")


def delete(place: Place, item: Garbage) -> None:
    remove(Path(item.what), place.settings.home)
