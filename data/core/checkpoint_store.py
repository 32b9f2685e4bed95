"""Files that unfinished stages keep at REMINT_CHECKPOINTS, a folder or s3://bucket/prefix.

    STAGE-KEY/NUMBER-SHA256.SUFFIX

KEY is the digest of everything the stage depends on (parameters, inputs, code, versions), so nothing is ever taken into
another execution; SHA256 is the digest of the file, so a damaged one is never used at all. NUMBER counts a training's
steps (`models.core.checkpoint`) or a data-parallel stage's shards (`data.core.partitions`). A finished stage removes
its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.core import stores
from data.core.digests import digest, sha256
from data.core.params import UserError

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"(\d{8,})-([0-9a-f]{64})\.(?:safetensors|shard)")
PLACE = re.compile(r"[\w@-]+-[0-9a-f]{16}")


class CheckpointStore:
    """The files of one place.

    They are a convenience: a store that fails costs one line on standard error and never the work. `strict` is for
    those whose work they are: the failure is raised, as an OSError.
    """

    def __init__(self, address: str, suffix: str, *, strict: bool = False) -> None:
        self.store, self.suffix, self.strict = stores.open(address), suffix, strict
        self.silent = False

    def files(self) -> dict[int, str]:
        """Names by their numbers, in the order of these."""
        names = [s.name for s in self.store.list() if NAME.fullmatch(s.name) and s.name.endswith(self.suffix)]
        return {int(name.partition("-")[0]): name for name in names}

    def put(self, number: int, write: Callable[[Path], object]) -> None:
        """Keep what `write` writes to the file it is given."""
        with self.tolerant("cannot be saved"), self.store.scratch() as folder:
            file = folder / f"{number:08d}"
            write(file)
            self.store.put(file, f"{number:08d}-{sha256(file)}.{self.suffix}")

    def get(self, name: str, scratch: Path) -> Path | None:
        """A file that is what its name says; a damaged one is named and removed."""
        _, expected = NAME.fullmatch(name).groups()  # type: ignore[union-attr]
        file = self.store.get(name, scratch)
        found = sha256(file)
        if found == expected:
            return file
        say(f"{self.store.address}/{name} is damaged (expected SHA-256 {expected[:12]}, found {found[:12]})")
        self.store.delete(name)
        return None

    def forget(self) -> None:
        """The stage is done: what it kept has no further use."""
        with self.tolerant("cannot be removed"):
            self.store.clear()

    @contextmanager
    def tolerant(self, problem: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self.strict:
                raise
            if not self.silent:
                say(f"checkpoints {problem} ({error}); the stage goes on")
            self.silent = True


def address(stage: str, params: Mapping[str, Any], inputs: Mapping[str, str], packages: tuple[str, ...]) -> str:
    """Where an execution keeps its files, from its parameters, its inputs' digests and the packages its code is in."""
    code = [digest(path) for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    lock = ROOT / "requirements.lock"
    versions = digest(lock) if lock.exists() else ""
    key = json.dumps([stage, params, inputs, code, versions], sort_keys=True, default=str)
    place = os.environ.get("REMINT_CHECKPOINTS") or ".remint/checkpoints"
    return f"{place.rstrip('/')}/{stage}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Unfinished:
    """What a stage left behind that has not ended: `place` (STAGE-KEY), the largest number, bytes and last change."""

    place: str
    number: int
    size: int
    modified: float

    @property
    def stage(self) -> str:
        return self.place.rpartition("-")[0]


def unfinished(address: str, idle: float = 0.0) -> list[Unfinished]:
    """The executions with files at REMINT_CHECKPOINTS that have saved nothing for `idle` seconds.

    Their key may be unreachable by now (other code, inputs or parameters) or may be asked for again tomorrow: nobody
    can tell but by age. `discard` removes one.
    """
    places: dict[str, list[tuple[int, stores.Stored]]] = {}
    for stored in stores.open(address).list():
        place, _, name = stored.name.rpartition("/")
        if place and (match := NAME.fullmatch(name)):
            places.setdefault(place, []).append((int(match[1]), stored))
    found = [
        Unfinished(place, max(n for n, _ in rows), sum(s.size for _, s in rows), max(s.modified for _, s in rows))
        for place, rows in sorted(places.items())
    ]
    return [one for one in found if time.time() - one.modified >= idle]


def discard(address: str, place: str) -> None:
    """Remove what one execution kept, as `unfinished` names it."""
    if not PLACE.fullmatch(place):
        raise UserError(f"'{place}' is not the name of what an unfinished stage keeps (STAGE-KEY)")
    stores.open(f"{address.rstrip('/')}/{place}").clear()


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
