"""Stage `photos`: turn real photographs into a pool of equal tiles, and store the depth benchmark beside it.

    python -m data.photos.collect --out artifacts/photos

`photos.source` of params.yaml is a YAML list or a folder of JPEG, PNG, WebP and TIFF files, searched recursively; or a
list of such a folder's files (`data.photos.listing`) or of arrivals (`data.photos.append`). What gives no tiles is
named with the reason, here and in quarantine.json; too many unusable files stop the stage. With the default list this
takes about two seconds and gives some 600 tiles of 64 pixels from seven photographs.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.core import digests, entry, manifest, params, shards
from data.core.params import UserError
from data.photos import append, arrivals, benchmark, crops, decode, listing, sources
from data.photos.cut import Cutter, SetAside, check_share, quarantine, write_json
from data.photos.params import Photos
from data.photos.sources import Photo


@dataclass(frozen=True)
class Candidate:
    """A photograph whose header could be read. `id` comes from its bytes: no name or place changes its tiles."""

    photo: Photo
    id: str
    tiles: int


def survey(photos: list[Photo], p: Photos) -> tuple[list[Candidate], list[SetAside]]:
    """Read all headers: what could be used, ordered by id, and what not."""
    found: dict[str, Candidate] = {}
    aside = []
    for photo in tqdm(photos, desc="photos: reading headers", unit="file"):
        if photo.reason:
            aside.append(SetAside(photo.name, photo.reason, bad=photo.reason != listing.LINKED))
            continue
        try:
            _verify(photo)
            width, height = decode.size_of(photo.path, p.max_pixels)
            tiles = crops.count(width, height, p.size)
            if not tiles:
                raise decode.Unusable(f"has {width} x {height} pixels, less than a tile of {p.size}")
            key = (photo.sha256 or _digest(photo.path))[:12]
        except decode.Unusable as error:
            aside.append(SetAside(photo.name, str(error)))
            continue
        if key in found:
            aside.append(SetAside(photo.name, f"is a copy of {found[key].photo.name}", bad=False))
        else:
            found[key] = Candidate(photo, key, tiles)
    return [found[key] for key in sorted(found)], aside


class Stream:
    """Yields (key, members) for the shard writer; afterwards holds the manifest's columns."""

    def __init__(self, candidates: list[Candidate], cutter: Cutter) -> None:
        self.cutter = cutter
        self.columns: list[dict[str, Any]] = []
        wanted = crops.shares([c.tiles for c in candidates], cutter.params.count)
        self.plan = [(c, n) for c, n in zip(candidates, wanted, strict=True) if n]
        unused = [c.photo.name for c, n in zip(candidates, wanted, strict=True) if not n]
        why = f"is not needed: photos.count = {cutter.params.count} tiles come from the others"
        cutter.aside += [SetAside(name, why, bad=False) for name in unused]

    def __iter__(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        with tqdm(total=sum(n for _, n in self.plan), desc="photos: cutting tiles", unit="tile") as bar:
            for candidate, wanted in self.plan:
                try:
                    for _, (key, members, columns) in self.cutter.tiles(candidate.photo, candidate.id, wanted):
                        self.columns.append(columns)
                        yield key, members
                except decode.Unusable as error:
                    self.cutter.aside.append(SetAside(candidate.photo.name, str(error)))
                bar.update(wanted)


def splits(ids: list[str], held_out_share: float) -> dict[str, str]:
    """Split by a hash of the photograph, so that tiles of one photograph never lie on both sides.

    Few photographs may all fall on one side; then the one whose hash is nearest to the border changes sides,
    so that both splits have one. Raises UserError for fewer than two photographs.
    """
    if len(ids) < 2:
        raise UserError("at least two usable photographs are needed, so that training and validation share none")
    found = {i: manifest.split_of(i, held_out_share) for i in ids}
    by_hash = sorted(ids, key=lambda i: hashlib.sha256(i.encode()).digest())  # the order split_of draws by
    if "val" not in found.values():
        found[by_hash[0]] = "val"
    if "train" not in found.values():
        found[by_hash[-1]] = "train"
    return found


def collect(source: str, out: Path, p: Photos) -> None:
    """Read the source, write pool and benchmark to `out`. The manifest comes last: with it, the folder is whole."""
    if source.endswith(arrivals.SUFFIX):
        append.collect(Path(source).expanduser(), out, p)
        return
    photos = sources.find(source)
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / append.FRESH, ignore_errors=True)
    for stale in [out / "manifest.parquet", out / append.RECORD, *out.glob("photos-*.tar")]:
        stale.unlink(missing_ok=True)
    benchmark.write_motorcycle(out / "benchmark")
    candidates, aside = survey(photos, p)
    cutter = Cutter(p)
    stream = Stream(candidates, cutter)
    entries = shards.write(out, "photos", stream, append.PER_SHARD)
    aside = sorted(aside + cutter.aside, key=lambda a: a.name)
    quarantine(aside, out)
    check_share(aside, len(photos), p.max_bad_share)

    split = splits(sorted({_photo_of(e.key) for e in entries}), p.held_out_share)
    common = {"label": -1, "class_name": ""}
    rows = [
        {**manifest.place(e), **columns, **common, "split": split[_photo_of(e.key)]}
        for e, columns in zip(entries, stream.columns, strict=True)
    ]
    used = {row["source"] for row in rows}
    (out / "ATTRIBUTION.md").write_text(
        sources.attribution([photo for photo in photos if photo.name in used]), encoding="utf-8"
    )
    info = {
        "files": len(photos),
        "photographs": len(split),
        "tiles": len(rows),
        "splits": dict(sorted(Counter(row["split"] for row in rows).items())),
        "flat_tiles_dropped": cutter.flat,
        "set_aside": len(aside),
        "bad_files": sum(a.bad for a in aside),
        "size": p.size,
        "classes": [],
    }
    write_json(out / "info.json", info)
    manifest.write(rows, out)
    sys.stderr.write(
        f"photos: {len(rows)} tiles from {len(split)} photographs; {cutter.flat} flat tiles dropped, "
        f"{len(aside)} files set aside\n"
    )


def _verify(photo: Photo) -> None:
    """UserError where a listed photograph has other bytes now: what the run records would not be what was read."""
    try:
        same = not photo.sha256 or digests.sha256(photo.path) == photo.sha256
    except OSError:
        same = False
    if not same:
        raise UserError(f"photos.source: {photo.path} is not as the run listed it; put it back, or start the run again")


def _digest(path: Path) -> str:
    try:
        return digests.sha256(path)
    except OSError as error:
        raise decode.Unusable(f"cannot be read: {error.strerror}") from None


def _photo_of(key: str) -> str:
    return key.split("-", 1)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    p = params.load(Photos, "photos")
    collect(p.source, arguments.out, p)


if __name__ == "__main__":
    entry.run(main)
