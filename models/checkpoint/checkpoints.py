"""The checkpoints of one training: save, find the newest good one, forget; and those that trainings left behind."""

from __future__ import annotations

import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.params import UserError
from models.checkpoint import files, stores

KEPT = 2  # the newest, and the one before it in case the newest is damaged
NAME = re.compile(r"(\d{8,})-([0-9a-f]{64})\.safetensors")
PLACE = re.compile(r"[\w@-]+-[0-9a-f]{16}")


class Checkpoints:
    """The files STEP-SHA256.safetensors in a folder or under s3://bucket/prefix.

    A checkpoint is a convenience: a store that fails costs one line on standard error and never the training.
    """

    def __init__(self, address: str) -> None:
        self.store = stores.open(address)
        self.silent = False

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep what `write` writes to the file it is given as the state after `step` steps."""
        with self._tolerant("cannot be saved"), self.store.scratch() as folder:
            file = folder / f".{step:08d}.partial"
            write(file)
            self.store.put(file, f"{step:08d}-{_sha256(file)}.safetensors")
            for name in self._names()[:-KEPT]:
                self.store.delete(name)

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """(step, state) of the newest checkpoint that is what its name says; a damaged one is named and removed."""
        with self._tolerant("cannot be read"), self.store.scratch() as folder:
            for name in reversed(self._names()):
                step, expected = NAME.fullmatch(name).groups()  # type: ignore[union-attr]
                file = self.store.get(name, folder)
                found = _sha256(file)
                if found == expected:
                    return int(step), files.read(file)
                _say(f"{self.store.address}/{name} is damaged (expected SHA-256 {expected[:12]}, found {found[:12]})")
                self.store.delete(name)
        return None

    def forget(self) -> None:
        """The training is done: its checkpoints have no further use."""
        with self._tolerant("cannot be removed"):
            self.store.clear()

    def _names(self) -> list[str]:
        return [s.name for s in self.store.list() if NAME.fullmatch(s.name)]

    @contextmanager
    def _tolerant(self, problem: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self.silent:
                _say(f"checkpoints {problem} ({error}); the training goes on")
            self.silent = True


@dataclass(frozen=True)
class Unfinished:
    """What a training left behind that has not ended: `place` (STAGE-KEY), its last step, bytes and last change."""

    place: str
    step: int
    size: int
    modified: float

    @property
    def stage(self) -> str:
        return self.place.rpartition("-")[0]


def unfinished(address: str, idle: float = 0.0) -> list[Unfinished]:
    """The trainings with checkpoints at REMINT_CHECKPOINTS that have saved nothing for `idle` seconds.

    Their key may be unreachable by now (other code, inputs or parameters) or may be asked for again tomorrow: nobody
    can tell but by age. `discard` removes one.
    """
    places: dict[str, list[tuple[int, stores.Stored]]] = {}
    for stored in stores.open(address).list():
        place, _, name = stored.name.rpartition("/")
        if place and (match := NAME.fullmatch(name)):
            places.setdefault(place, []).append((int(match[1]), stored))
    found = [
        Unfinished(place, max(step for step, _ in rows), sum(s.size for _, s in rows), max(s.modified for _, s in rows))
        for place, rows in sorted(places.items())
    ]
    return [one for one in found if time.time() - one.modified >= idle]


def discard(address: str, place: str) -> None:
    """Remove the checkpoints of one training, as `unfinished` names it."""
    if not PLACE.fullmatch(place):
        raise UserError(f"'{place}' is not the name of a training's checkpoints (STAGE-KEY)")
    stores.open(f"{address.rstrip('/')}/{place}").clear()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
