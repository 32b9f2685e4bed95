"""Shards of a data-parallel stage: each is kept when it is finished, and parts of them can be made on other machines.

A stage that is started again takes the shards that are there (`data.core.checkpoint_store`, verified) and makes only
the others. With REMINT_PART=2/4 it makes only the shards with index % 4 == 1, into that store, and writes no outputs:
four such processes share the work, and the stage itself then finds every shard done. The bytes are the same either way.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.core.checkpoint_store import CheckpointStore, say
from data.core.params import UserError

VARIABLE = "REMINT_PART"
FOLDER = ".shards"  # in the stage's output folder, while it works


class Done(Exception):
    """This process did its share, a partition or a rank, and writes no outputs."""


@dataclass(frozen=True)
class Partition:
    """The shards with index % count == number - 1."""

    number: int
    count: int

    def has(self, index: int) -> bool:
        return index % self.count == self.number - 1


def asked() -> Partition | None:
    """The partition that REMINT_PART names, None for the whole stage."""
    text = os.environ.get(VARIABLE, "")
    if not text:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"{VARIABLE} must be NUMBER/COUNT such as 2/4, with a number from 1 to the count, not '{text}'")
    return Partition(int(match[1]), int(match[2]))


class Shards:
    """The `count` shards of one execution, a file each: those that were kept, and those that are made now.

    `missing` are the indices to make here, in order. In the end `files()` gives all files, or raises Done in a part.
    """

    def __init__(self, address: str | None, count: int, out: Path) -> None:
        self.part, self.count, self.work = asked(), count, out / FOLDER
        if self.part and not address:
            raise UserError(f"{VARIABLE} needs a place for shards; set REMINT_CHECKPOINTS")
        self.store = CheckpointStore(address, "shard", strict=self.part is not None) if address else None
        wanted = [index for index in range(count) if self.part is None or self.part.has(index)]
        there = self._there()
        self.missing = [index for index in wanted if index not in there]
        if len(self.missing) < len(wanted):
            say(f"going on with {len(wanted) - len(self.missing)} of {len(wanted)} shards done")

    def make(self, index: int, write: Callable[[Path], object]) -> None:
        """Make one shard by `write`, which is given the file to write, and keep it."""
        if self.part:
            assert self.store is not None
            self.store.put(index, write)
            return
        file = self._file(index)
        file.parent.mkdir(parents=True, exist_ok=True)
        write(file)
        if self.store:
            self.store.put(index, lambda copy: shutil.copyfile(file, copy))

    def files(self) -> list[Path]:
        """The file of every shard; they are the caller's and lie in the output folder's file system."""
        if self.part:
            raise Done
        return [self._file(index) for index in range(self.count)]

    def forget(self) -> None:
        """All outputs are written."""
        shutil.rmtree(self.work, ignore_errors=True)
        if self.store:
            self.store.forget()

    def _there(self) -> set[int]:
        """The shards that need not be made: a part looks at names alone, the whole stage brings and verifies them."""
        if self.store is None:
            return set()
        found: set[int] = set()
        with self.store.tolerant("cannot be read"):
            names = {index: name for index, name in self.store.files().items() if index < self.count}
            if self.part:
                return set(names)
            self.work.mkdir(parents=True, exist_ok=True)
            for index, name in names.items():
                if file := self.store.get(name, self.work):
                    if file.parent == self.work:
                        file.replace(self._file(index))
                    else:
                        shutil.copyfile(file, self._file(index))
                    found.add(index)
        return found

    def _file(self, index: int) -> Path:
        return self.work / f"{index:08d}"


@contextmanager
def opened(address: str, count: int, out: Path) -> Iterator[Shards]:
    """The shards of a stage that has no other surroundings; forgotten when the block ends well."""
    try:
        shards = Shards(address, count, out)
        yield shards
    except Done:
        return
    shards.forget()
