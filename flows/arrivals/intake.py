"""Intake of what is new at the watched place: each photograph once, by the digest of its bytes, whatever it is called.

    taken = intake.take_in(settings, log, production, on_batch)

A file is read, decoded and measured, its bytes are kept, and its batch is created; only then is it taken in. Whoever
is killed before leaves bytes under their digest, which the next look finds and uses. One photograph at a time is in
memory, and a batch is written for every thousand.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from data.core import digests, params, stores
from data.photos import arrivals, decode, sources
from data.photos.arrivals import Arrival
from data.photos.params import Photos
from flows import repository
from flows.arrivals import incoming, measure
from flows.arrivals.baseline import LOOKED_AT, Production
from flows.arrivals.batches import BEFORE, Aside, Batch, Log
from flows.arrivals.incoming import FolderIncoming, Item, Memo, Nothing, S3Incoming, Unfetched
from flows.settings import Settings

PER_BATCH = 1000
LARGEST = 1 << 30  # bytes of a file that is read at all
AT_ONCE = 16  # photographs that the student looks at in one go
OnBatch = Callable[[Batch], None]


@dataclass
class Taken:
    """What came of a look."""

    place: str
    batches: list[Batch] = field(default_factory=list)
    known: int = 0  # files whose bytes were taken in before, under whatever name
    later: list[tuple[str, str]] = field(default_factory=list)  # could not be read now, and why

    @property
    def arrived(self) -> int:
        return sum(batch.arrived for batch in self.batches)

    @property
    def aside(self) -> list[Aside]:
        return [one for batch in self.batches for one in batch.aside]


@dataclass
class _New:
    """A photograph that no batch holds yet."""

    arrival: Arrival
    statistics: dict[str, list[int]]
    tiles: np.ndarray | None  # until the student has looked at them
    confusion: float | None = None  # mean of its tiles


def take_in(settings: Settings, log: Log, production: Production | None, on_batch: OnBatch) -> Taken:
    """Take in what is new; `on_batch` gets each batch when it is written. UserError names what cannot be read."""
    place = incoming.open(settings)
    taken = Taken(place.name)
    reader = _Reader(settings, log, production, taken, on_batch)
    with incoming.memo(settings.home / "watch" / "seen.db", place.name) as seen:
        try:
            for item in place.items():
                if seen.digest(item) in reader.known:
                    taken.known += 1
                else:
                    reader.take(place, item, seen)
                if len(reader.new) >= PER_BATCH:
                    reader.write()
        except Nothing:  # a place that is empty is fine, but not one that something had come from
            if any(batch.source == place.name for batch in log.read()):
                raise
        reader.write()
    return taken


class _Reader:
    """Reads files, and gathers a batch."""

    def __init__(
        self, settings: Settings, log: Log, production: Production | None, taken: Taken, on_batch: OnBatch
    ) -> None:
        self.log, self.production, self.taken, self.on_batch = log, production, taken, on_batch
        self.root = repository.find(settings.root).top
        self.photos = params.load(Photos, "photos", self.root / "params.yaml")
        self.new: dict[str, _New] = {}
        self.aside: dict[str, Aside] = {}
        self.known: set[str | None] = set()
        self._learn(log.read())

    def take(self, place: FolderIncoming | S3Incoming, item: Item, seen: Memo) -> None:
        with tempfile.TemporaryDirectory(prefix="remint-arrival-") as folder:
            path = Path(folder, "photograph")
            try:
                if item.size > LARGEST:
                    raise decode.Unusable(f"has {item.size >> 20} MB, more than {LARGEST >> 20}")
                place.fetch(item, path)
            except Unfetched as error:
                self.taken.later.append((item.name, str(error)))
                return
            except decode.Unusable as error:
                sha256 = hashlib.sha256(repr(item).encode()).hexdigest()  # of one that is not read: its stamp's
                self._set_aside(Aside(sha256, item.name, str(error)))
                return
            sha256 = digests.sha256(path)
            if sha256 in self.known or sha256 in self.new or sha256 in self.aside:
                self.taken.known += 1
            else:
                self._read(path, Arrival(sha256, path.stat().st_size, item.name, licence=sources.OWN))
            seen.note(item, sha256)

    def write(self) -> None:
        """Write a batch of what was gathered; nothing of it that somebody else has taken in meanwhile."""
        if not self.new and not self.aside:
            return
        self._look()

        def make(batches: Sequence[Batch], number: int) -> Batch | None:
            self._learn(batches)
            new = [self.new[key] for key in sorted(self.new) if key not in self.known]
            aside = [self.aside[key] for key in sorted(self.aside) if key not in self.known]
            return self._batch(number, new, aside) if new or aside else None

        if self.new and not any(batch.photographs for batch in self.log.read()):
            self._write_before()
        self._append(make)
        self.new, self.aside = {}, {}

    def _write_before(self) -> None:
        """The photographs that a run was made from so far come first: what arrives is added to them."""
        before: dict[str, Arrival] = {}
        for arrival, path in _source(self.root, self.photos.source):
            self.log.keep(path, arrival.sha256)
            before.setdefault(arrival.sha256, arrival)

        def make(batches: Sequence[Batch], number: int) -> Batch | None:
            if any(batch.photographs for batch in batches):
                return None
            return Batch(number, BEFORE, tuple(before.values()), at=_now())

        self._append(make)

    def _append(self, make: Callable[[Sequence[Batch], int], Batch | None]) -> None:
        if (batch := self.log.append(make)) is not None:
            self.taken.batches.append(batch)
            self._learn([batch])
            self.on_batch(batch)

    def _learn(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self.known.update(one.sha256 for one in batch.photographs)
            self.known.update(one.sha256 for one in batch.aside)

    def _read(self, path: Path, arrival: Arrival) -> None:
        try:
            measured = measure.measure(path, arrival.sha256, self.photos)
        except decode.Unusable as error:
            self._set_aside(Aside(arrival.sha256, arrival.name, str(error)))
            return
        self.log.keep(path, arrival.sha256)
        tiles = measured.tiles[:LOOKED_AT] if self.production else None
        statistics = measure.histograms(measured.brightness, measured.contrast)
        self.new[arrival.sha256] = _New(arrival, statistics, tiles)
        if sum(one.tiles is not None for one in self.new.values()) >= AT_ONCE:
            self._look()

    def _set_aside(self, one: Aside) -> None:
        if one.sha256 not in self.known:
            self.aside[one.sha256] = one

    def _look(self) -> None:
        """Let the student in production look at what it has not seen yet."""
        unseen = [(one, one.tiles) for one in self.new.values() if one.tiles is not None]
        if self.production is None or not unseen:
            return
        values = iter(self.production.look(np.concatenate([tiles for _, tiles in unseen])))
        for one, tiles in unseen:
            one.confusion = round(float(np.mean([next(values) for _ in tiles])), 5)
            one.tiles = None

    def _batch(self, number: int, new: Sequence[_New], aside: Sequence[Aside]) -> Batch:
        return Batch(
            number,
            self.taken.place,
            tuple(one.arrival for one in new),
            tuple(aside),
            statistics=measure.added(one.statistics for one in new),
            student=self.production.student.bundle if self.production else "",
            confusion=tuple(one.confusion for one in new if one.confusion is not None),
            at=_now(),
        )


def _source(root: Path, named: str) -> Iterator[tuple[Arrival, Path]]:
    """The photographs of photos.source, in order; each path lasts until the next is asked for."""
    source = root / Path(named).expanduser()
    if source.suffix != arrivals.SUFFIX:
        for photo in sources.find(source):
            if os.access(photo.path, os.R_OK) and photo.path.is_file():  # the stage sets others aside
                about = {"licence": photo.licence, "author": photo.author, "title": photo.title, "url": photo.url}
                yield Arrival(digests.sha256(photo.path), photo.path.stat().st_size, photo.name, **about), photo.path
        return
    listed = arrivals.read(source)
    pool = stores.open(listed.pool, "photos.source")
    for one in listed.photographs:
        with tempfile.TemporaryDirectory(prefix="remint-arrival-") as scratch:
            yield one, arrivals.bring(pool, one, Path(scratch))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
