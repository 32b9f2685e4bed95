"""The pool of an arrival list: shards filled in order of arrival, so that those which are full never change.

Of every photograph as many tiles are taken, whatever arrives later. What a full shard was made from stands in
shards.json; where the output folder still holds the version before, such shards are verified and stay, and only
photographs that came later are read. The bytes are the same without it. One photograph is in memory at a time, and
the manifest is written a shard (a row group) at a time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from data.core import checkpoint_store, digests, manifest, shards, stores
from data.core.params import UserError
from data.photos import arrivals, benchmark, decode, sources
from data.photos.arrivals import Arrival
from data.photos.cut import Cutter, SetAside, check_share, quarantine, write_json
from data.photos.params import Photos
from data.photos.sources import Photo

PER_SHARD = 1000
RECORD, MANIFEST, FRESH = "shards.json", "manifest.parquet", ".fresh"


@dataclass(frozen=True)
class Position:
    """A place in the stream of tiles: which arrival, and how many of its tiles are behind."""

    arrival: int = 0
    tile: int = 0


@dataclass
class Shard:
    """What a shard was made from, and what came of it."""

    name: str
    start: Position
    end: Position = field(default_factory=Position)
    photographs: list[str] = field(default_factory=list)  # all that were read for it, by digests of their lines
    sha256: str = ""  # of a full shard; one that is not full is made again when more arrives
    tiles: int = 0
    flat: int = 0
    aside: list[SetAside] = field(default_factory=list)


def collect(source: Path, out: Path, p: Photos) -> None:
    """Write the pool of the list `source` to `out`."""
    if p.per_photo is None:
        raise UserError(
            "photos.per_photo must say how many tiles to take from each photograph of an arrival list: shares of "
            "photos.count would change with every arrival"
        )
    listed = arrivals.read(source)
    if not listed.photographs:
        raise UserError(f"photos.source: {source} lists no photographs; wait until some have arrived")
    out.mkdir(parents=True, exist_ok=True)
    benchmark.write_motorcycle(out / "benchmark")
    fresh = out / FRESH
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    maker = Maker(listed, out, fresh, p)
    with pq.ParquetWriter(fresh / MANIFEST, manifest.SCHEMA, compression="zstd") as writer:
        for table in maker.tables():
            writer.write_table(table)
    aside = maker.aside()
    quarantine(aside, out)
    check_share(aside, len(listed.photographs), p.max_bad_share)
    maker.finish()
    sys.stderr.write(
        f"photos: {sum(shard.tiles for shard in maker.made)} tiles from {len(maker.used)} photographs; {maker.stayed} "
        f"of {len(maker.made)} shards stay, {len(aside)} files set aside\n"
    )


class Maker:
    """Goes through the arrivals once, shard by shard."""

    def __init__(self, listed: arrivals.Arrivals, out: Path, fresh: Path, p: Photos) -> None:
        self.listed, self.out, self.fresh, self.params = listed.photographs, out, fresh, p
        self.store = stores.open(listed.pool, "the pool of photos.source")
        self.cutter = Cutter(p)
        self.key = _key(p)
        self.made: list[Shard] = []
        self.used: dict[str, str] = {}  # digest -> split, of photographs that gave tiles
        self.splits: Counter[str] = Counter()  # of tiles
        self.stayed = 0

    def tables(self) -> Iterator[pa.Table]:
        """The manifest of each shard; the shard itself is written, or found to be there."""
        position = Position()
        bar = tqdm(total=len(self.listed), desc="photos: cutting tiles", unit="photograph")
        for shard, table in self._before():
            yield self._take(shard, table)
            position = shard.end
            self.stayed += 1
            bar.update(position.arrival - bar.n)
        tiles = self._tiles(position, bar)
        while (first := next(tiles, None)) is not None:
            yield self._cut(position, chain([first], tiles))
            position = self.made[-1].end
        bar.close()

    def aside(self) -> list[SetAside]:
        """What gave no tiles: beside every shard, and behind the last one."""
        return [*(one for shard in self.made for one in shard.aside), *self.cutter.aside]

    def finish(self) -> None:
        """Put everything in its place; the manifest comes last."""
        if not {"train", "val"} <= self.splits.keys():
            raise UserError("at least two usable photographs are needed, so that training and validation share none")
        for file in self.fresh.glob("*.tar"):
            file.replace(self.out / file.name)
        for stale in {p.name for p in self.out.glob("photos-*.tar")} - {shard.name for shard in self.made}:
            (self.out / stale).unlink()
        photos = [_photo(one) for one in self.listed if one.sha256 in self.used]
        (self.out / "ATTRIBUTION.md").write_text(sources.attribution(photos), encoding="utf-8")
        aside = self.aside()
        info = {
            "files": len(self.listed),
            "photographs": len(self.used),
            "tiles": sum(shard.tiles for shard in self.made),
            "splits": dict(sorted(self.splits.items())),
            "flat_tiles_dropped": sum(shard.flat for shard in self.made) + self.cutter.flat,
            "set_aside": len(aside),
            "bad_files": sum(one.bad for one in aside),
            "size": self.params.size,
            "classes": [],
        }
        write_json(self.out / "info.json", info)
        full = [asdict(shard) for shard in self.made if shard.sha256]
        write_json(self.out / RECORD, {"key": self.key, "shards": full})
        (self.fresh / MANIFEST).replace(self.out / MANIFEST)
        shutil.rmtree(self.fresh)

    def _before(self) -> Iterator[tuple[Shard, pa.Table]]:
        """The full shards of the version before that these arrivals would give again, from the first one on."""
        try:
            known = json.loads((self.out / RECORD).read_text())
            groups = pq.ParquetFile(self.out / MANIFEST)
            records = [_shard(one) for one in known["shards"]] if known["key"] == self.key else []
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid):
            return
        position = Position()
        for index, shard in enumerate(records):
            listed = [_mark(one) for one in self.listed[position.arrival : position.arrival + len(shard.photographs)]]
            file = self.out / shard.name
            if shard.start != position or listed != shard.photographs or index >= groups.num_row_groups:
                return
            if not file.is_file() or digests.sha256(file) != shard.sha256:
                return
            table = groups.read_row_group(index, columns=manifest.SCHEMA.names)
            if set(table["shard"].to_pylist()) != {shard.name}:
                return
            yield shard, table
            position = shard.end

    def _cut(self, start: Position, tiles: Iterator[tuple[Position, Arrival, Any]]) -> pa.Table:
        """Write the next shard."""
        shard = Shard(shards.name("photos", len(self.made)), start)
        columns: list[dict[str, Any]] = []

        def samples() -> Iterator[tuple[str, dict[str, bytes]]]:
            for position, one, (key, members, facts) in islice(tiles, PER_SHARD):
                shard.end = position
                columns.append({**facts, "label": -1, "class_name": "", "split": self._split(one.sha256)})
                yield key, members

        file = self.fresh / shard.name
        entries = shards.write_one(file, samples())
        if len(entries) == PER_SHARD:
            shard.sha256 = digests.sha256(file)
        shard.photographs = [_mark(one) for one in self.listed[start.arrival : shard.end.arrival + 1]]
        shard.tiles, shard.flat, shard.aside = len(entries), self.cutter.flat, self.cutter.aside
        self.cutter.flat, self.cutter.aside = 0, []
        rows = [{**manifest.place(entry), **more} for entry, more in zip(entries, columns, strict=True)]
        return self._take(shard, pa.Table.from_pylist(rows, schema=manifest.SCHEMA))

    def _take(self, shard: Shard, table: pa.Table) -> pa.Table:
        self.made.append(shard)
        ids = {one.sha256[:12]: one.sha256 for one in self.listed[shard.start.arrival : shard.end.arrival + 1]}
        for key, split in zip(table["key"].to_pylist(), table["split"].to_pylist(), strict=True):
            self.used[ids[key.partition("-")[0]]] = split
            self.splits[split] += 1
        return table

    def _tiles(self, start: Position, bar: tqdm) -> Iterator[tuple[Position, Arrival, Any]]:
        """Every tile from a position on, with the position behind it."""
        assert self.params.per_photo is not None
        for index in range(start.arrival, len(self.listed)):
            one, skipped = self.listed[index], start.tile if index == start.arrival else 0
            with tempfile.TemporaryDirectory(prefix="remint-photo-") as scratch:
                photo = _photo(one, arrivals.bring(self.store, one, Path(scratch)))
                try:
                    for number, tile in self.cutter.tiles(photo, one.sha256[:12], self.params.per_photo, skipped):
                        yield Position(index, number + 1), one, tile
                except decode.Unusable as error:
                    self.cutter.aside.append(SetAside(one.name, str(error)))
            bar.update(1)

    def _split(self, sha256: str) -> str:
        """By the photograph's digest alone, so that what arrives later moves none. The very first one is always
        trained on and the second held out, lest one side be empty."""
        for place, split in enumerate(("train", "val")):
            if sha256 == self.listed[place % len(self.listed)].sha256:
                return split
        return manifest.split_of(sha256[:12], self.params.held_out_share)


def _photo(one: Arrival, file: Path = Path()) -> Photo:
    return Photo(file, one.name, one.title, one.author, one.licence or sources.OWN, one.url)


def _mark(one: Arrival) -> str:
    """Of all that the manifest takes from a line."""
    return hashlib.sha256(json.dumps(asdict(one)).encode()).hexdigest()


def _key(p: Photos) -> str:
    """Of all that a shard and its rows depend on besides the photographs: parameters, code, versions."""
    values = {k: v for k, v in asdict(p).items() if k not in ("source", "count", "max_bad_share")}
    return checkpoint_store.address("photos", values, {}, ("data",)).rpartition("-")[2]


def _shard(values: dict[str, Any]) -> Shard:
    places = {name: Position(**values[name]) for name in ("start", "end")}
    return Shard(**{**values, **places, "aside": [SetAside(**one) for one in values["aside"]]})
