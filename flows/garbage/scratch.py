"""Unfinished files of runs and downloads in the home, and the working folders of reproductions."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path

from flows.garbage.place import Garbage, Place, files, newest, remove, size

KIND = "scratch"
UNFINISHED = (".partial", ".new", ".tmp")
UPLOADED = re.compile(r"\..+\.[0-9a-f]{32}")  # how a bucket in a folder calls a file that is not whole yet
# Beside these there is nothing unfinished to look for, or another kind looks there.
OTHERS = ("checkpoints", "dvc", "mlflow", "prefect", "production", "reproductions", "worktrees")


def guard(place: Place) -> AbstractContextManager[None]:
    return nullcontext()


def find(place: Place) -> Iterator[Garbage]:
    home = place.settings.home
    for file in _unfinished(home):
        if not _of_the_living(file, place) and place.old(newest(file)):
            yield Garbage(KIND, str(file), size(file), "written in part and left")
    folder = home / "reproductions"
    for path in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else ():
        if place.old(newest(path)) and not _somebody_works_in(path):
            yield Garbage(KIND, str(path), size(path), "its reproduction has ended")


def _unfinished(home: Path) -> Iterator[Path]:
    for top in sorted(home.iterdir()):
        if top.name not in OTHERS and not top.is_symlink():
            every = sorted(files(top)) if top.is_dir() else [top]
            yield from (file for file in every if file.name.endswith(UNFINISHED))
    production = home / "production"
    if production.is_dir() and not production.is_symlink():
        yield from (file for file in sorted(files(production)) if UPLOADED.fullmatch(file.name))


def delete(place: Place, item: Garbage) -> None:
    remove(Path(item.what), place.settings.home)


def _of_the_living(file: Path, place: Place) -> bool:
    return not place.living.isdisjoint(file.relative_to(place.settings.home).parts)


def _somebody_works_in(folder: Path) -> bool:
    """Whether a process of this machine stands in a folder."""
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if Path(os.readlink(link)).is_relative_to(folder.resolve()):  # noqa: PTH115 - as the kernel prints it
                return True
    return False
