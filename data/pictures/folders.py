"""Folders of pictures: a class is a folder of them (ImageNet's layout), what lies beside them has none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from data.core.params import UserError
from data.pictures.given import Given, Spool, printable
from data.pictures.places import File, Place


def check(files: Sequence[File], where: str) -> None:
    """UserError where a folder's place does not say one class: folders in class folders, names that differ in case."""
    deep = [file.name for file in files if file.name.count("/") > 1]
    if deep:
        raise UserError(
            f"{where}: class folder {deep[0].partition('/')[0]!r} holds folders ({deep[0]!r}); name the folder whose "
            "folders are the classes"
        )


def classes(files: Sequence[File]) -> tuple[str, ...]:
    """The class folders' names, sorted; empty for a flat folder."""
    return tuple(sorted({_class(file.name) for file in files} - {""}))


def read(files: Sequence[File], place: Place, spool: Spool, scratch: Path) -> Iterator[Given]:
    """Every picture; those of a bucket are brought here."""
    for file in files:
        name, label = printable(file.name), _class(file.name) or None
        if file.reason:
            yield Given(name, label=label, reason=file.reason)
        elif path := place.here(file):
            yield Given(name, path, file.mark, label)
        else:
            with place.opened(file, scratch) as brought:
                sha256, path = spool.keep(brought.read_bytes())
            yield Given(name, path, sha256, label)


def _class(name: str) -> str:
    return printable(name.rpartition("/")[0])
