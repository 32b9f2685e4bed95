"""The log of what arrived: numbered batches, each created once and never changed, beside the photographs themselves.

    <REMINT_ARRIVED>/batches/000001.json              a batch: its photographs by digest, what was set aside, statistics
    <REMINT_ARRIVED>/photographs/ab/abcd...           the bytes of each photograph, under their SHA-256

Creating a batch is the only moment that counts: a watch that is killed before it has changed nothing that anybody
sees, and of two watches that would write the same number one wins and the other looks again (`append`). So no
photograph is in two batches. What a run is given, `text`, only ever grows at its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data.core.files import write_whole
from data.core.params import UserError
from data.photos import arrivals
from data.photos.arrivals import Arrival
from flows import state
from flows.settings import Settings
from flows.storage import bucket
from flows.storage.protocol import Bucket, Taken

VARIABLE = "REMINT_ARRIVED"
LARGEST = 16 << 20  # bytes of a batch
BEFORE = "photos.source"  # where the photographs come from that were there before any arrived


@dataclass(frozen=True)
class Aside:
    """A file that is no photograph for us, and why; "" for the digest of one that was not read."""

    sha256: str
    name: str
    reason: str


@dataclass(frozen=True)
class Batch:
    """What was taken in at once."""

    number: int  # 1, 2, ...
    source: str  # where it came from
    photographs: tuple[Arrival, ...]  # by digest
    aside: tuple[Aside, ...] = ()
    statistics: Mapping[str, list[int]] = field(default_factory=dict)  # of tiles: column -> histogram
    student: str = ""  # the bundle of the depth model in production that looked at them
    confusion: tuple[float, ...] = ()  # and how much it disagreed with itself, photograph by photograph
    at: str = ""  # UTC; for people, never compared

    @property
    def arrived(self) -> int:
        """How many photographs are new in it; those from before only stand first in the list."""
        return 0 if self.source == BEFORE else len(self.photographs)


class Log:
    """The batches in one place; those that were read once are kept in a local folder, as they never change."""

    def __init__(self, store: Bucket, pool: str, kept: Path) -> None:
        self.store, self.pool, self.kept = store, pool, kept
        self._batches: list[Batch] = []

    def read(self) -> list[Batch]:
        """Every batch, first to last."""
        numbers = [key for key in self.store.list("batches/") if key.endswith(".json")]
        for key in numbers[len(self._batches) :]:
            self._batches.append(self._batch(key))
        return list(self._batches)

    def append(self, make: Callable[[Sequence[Batch], int], Batch | None]) -> Batch | None:
        """Add the batch that `make` gives for the log as it is and the next number, or nothing.

        `make` is asked again when somebody else was quicker, with the log as it is then.
        """
        while True:
            batch = make(self.read(), len(self._batches) + 1)
            if batch is None:
                return None
            try:
                self.store.create(_key(batch.number), _bytes(asdict(batch)))
            except Taken:
                continue
            return batch

    def keep(self, path: Path, sha256: str) -> None:
        """Store a photograph's bytes for good."""
        self.store.upload(f"photographs/{sha256[:2]}/{sha256}", path, sha256)

    def text(self, batches: Iterable[Batch]) -> str:
        """The arrival list that a run is given; see `data.photos.arrivals`."""
        return arrivals.text(arrivals.Arrivals(self.pool, tuple(one for each in batches for one in each.photographs)))

    def _batch(self, key: str) -> Batch:
        path = self.kept / Path(key).name
        with contextlib.suppress(UserError):  # a damaged copy is made again
            if known := state.read(path, _from_json, ""):
                return known
        data = self.store.read(key, LARGEST)
        self.kept.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
        batch = state.read(path, _from_json, f"bring {self.store.name}/{key} back from a copy of the place")
        assert batch is not None
        return batch


def open(settings: Settings) -> Log:
    """The log that the settings name: REMINT_ARRIVED."""
    here = settings.arrived.rstrip("/")
    kept = settings.home / "watch" / hashlib.sha256(here.encode()).hexdigest()[:12]
    return Log(bucket.at(here, VARIABLE), f"{here}/photographs", kept)


def _key(number: int) -> str:
    return f"batches/{number:06d}.json"


def _from_json(values: Mapping[str, Any]) -> Batch:
    parts = {
        "photographs": tuple(Arrival(**one) for one in values["photographs"]),
        "aside": tuple(Aside(**one) for one in values["aside"]),
        "confusion": tuple(values["confusion"]),
    }
    return Batch(**{**values, **parts})


def _bytes(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, sort_keys=True, ensure_ascii=False) + "\n").encode()
