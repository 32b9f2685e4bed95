"""Stage `photos`: turn real photographs into a pool of equal tiles, and store the depth benchmark beside it.

    python -m data.photos.collect --source data/photos/wheels.yaml --out artifacts/photos

The source is a YAML list or a folder of JPEG, PNG, WebP and TIFF files, searched recursively. Files that cannot be
used are listed in quarantine.json with the reason; too many of them stop the stage. With the default list this
takes about two seconds and gives some 600 tiles of 64 pixels from seven photographs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from data import entry, manifest, params, samples, shards
from data.params import UserError
from data.photos import benchmark, crops, decode, sources
from data.photos.sources import Photo

PER_SHARD = 1000
SAME_PICTURE = 3  # bits of 64 in which the difference hashes of two copies of a picture may differ


@dataclass(frozen=True)
class Photos:
    """Section `photos` of params.yaml."""

    source: str  # a folder or a YAML list; the command line says which one is read
    size: int  # side of a tile in pixels
    count: int  # at most so many tiles, shared evenly among the photographs
    held_out_share: float  # share of the photographs (not of the tiles) that is held out
    min_contrast: float  # standard deviation of luma (0..0.5) under which a tile is empty sky or wall
    max_bad_share: float  # share of unusable files above which the stage stops
    max_pixels: int  # a file with more is not decoded
    seed: int

    def __post_init__(self) -> None:
        if self.size < 16 or self.count < 2 or self.max_pixels < self.size**2:
            raise ValueError("size must be at least 16, count at least 2 and max_pixels at least size x size")
        for name in ("held_out_share", "max_bad_share", "min_contrast"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class Candidate:
    """A photograph whose header could be read. `id` comes from its bytes: no name or place changes its tiles."""

    photo: Photo
    id: str
    tiles: int


@dataclass(frozen=True)
class SetAside:
    """A file that gives no tiles, and why; `bad` if that is the file's fault (copies and the benchmark are not)."""

    name: str
    reason: str
    bad: bool = True


def survey(photos: list[Photo], p: Photos) -> tuple[list[Candidate], list[SetAside]]:
    """Read all headers: what could be used, ordered by id, and what not."""
    found: dict[str, Candidate] = {}
    aside = []
    for photo in tqdm(photos, desc="photos: reading headers", unit="file"):
        try:
            width, height = decode.size_of(photo.path, p.max_pixels)
            tiles = crops.count(width, height, p.size)
            if not tiles:
                raise decode.Unusable(f"has {width} x {height} pixels, less than a tile of {p.size}")
            key = _digest(photo.path)
        except decode.Unusable as error:
            aside.append(SetAside(photo.name, str(error)))
            continue
        if key in found:
            aside.append(SetAside(photo.name, f"is a copy of {found[key].photo.name}", bad=False))
        else:
            found[key] = Candidate(photo, key, tiles)
    return [found[key] for key in sorted(found)], aside


class Cutter:
    """Yields (key, members) for the shard writer; afterwards holds the manifest columns and what was set aside."""

    def __init__(self, candidates: list[Candidate], p: Photos, held_out: list[str]) -> None:
        self.params, self.held_out = p, held_out  # held_out: difference hashes of pictures that must not come in
        self.columns: list[dict[str, Any]] = []
        self.aside: list[SetAside] = []
        self.flat = 0
        wanted = crops.shares([c.tiles for c in candidates], p.count)
        self.plan = [(c, n) for c, n in zip(candidates, wanted, strict=True) if n]

    def __iter__(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        with tqdm(total=sum(n for _, n in self.plan), desc="photos: cutting tiles", unit="tile") as bar:
            for candidate, wanted in self.plan:
                try:
                    yield from self._tiles(candidate, wanted)
                except decode.Unusable as error:
                    self.aside.append(SetAside(candidate.photo.name, str(error)))
                bar.update(wanted)

    def _tiles(self, candidate: Candidate, wanted: int) -> Iterator[tuple[str, dict[str, bytes]]]:
        photo = decode.load(candidate.photo.path, self.params.max_pixels)
        if _is_one_of(photo, self.held_out):
            self.aside.append(SetAside(candidate.photo.name, "is the depth benchmark, which is held out", bad=False))
            return
        seed = self.params.seed + int(candidate.id, 16)
        chosen = crops.choose(*photo.size, self.params.size, wanted, seed)
        for tile, pixels in crops.cut(photo, chosen, self.params.size):
            facts = manifest.picture(pixels)
            if facts["contrast"] < self.params.min_contrast:
                self.flat += 1
                continue
            self.columns.append({**facts, "source": candidate.photo.name, "licence": candidate.photo.licence})
            about = {"photo": candidate.photo.name, "level": tile.level, "row": tile.row, "column": tile.column}
            members = {"rgb.png": samples.encode_png(pixels), "json": json.dumps(about, sort_keys=True).encode()}
            yield f"{candidate.id}-{tile.name}", members


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


def check_share(aside: list[SetAside], files: int, max_bad_share: float) -> None:
    """Raise UserError when more than the allowed share of the files is bad, naming the first ones."""
    bad = [a for a in aside if a.bad]
    if len(bad) > max_bad_share * files:
        shown = "; ".join(f"{a.name!r} {a.reason}" for a in bad[:3])
        raise UserError(
            f"{len(bad)} of {files} files cannot be used, more than photos.max_bad_share = {max_bad_share}: {shown}"
            f"{'; ...' if len(bad) > 3 else ''}. Remove them (all are in quarantine.json) or raise the share"
        )


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def collect(source: str, out: Path, p: Photos) -> None:
    """Read the source, write pool and benchmark to `out`. The manifest comes last: with it, the folder is whole."""
    photos = sources.find(source)
    out.mkdir(parents=True, exist_ok=True)
    for stale in [out / "manifest.parquet", *out.glob("photos-*.tar")]:
        stale.unlink(missing_ok=True)
    benchmark.write_motorcycle(out / "benchmark")
    candidates, aside = survey(photos, p)
    cutter = Cutter(candidates, p, [fingerprint(Image.fromarray(view)) for view in benchmark.views()])
    entries = shards.write(out, "photos", cutter, PER_SHARD)
    aside = sorted(aside + cutter.aside, key=lambda a: a.name)
    write_json(out / "quarantine.json", [{"name": a.name, "reason": a.reason} for a in aside])
    check_share(aside, len(photos), p.max_bad_share)

    split = splits(sorted({_photo_of(e.key) for e in entries}), p.held_out_share)
    common = {"label": -1, "class_name": ""}
    rows = [
        {**manifest.place(e), **columns, **common, "split": split[_photo_of(e.key)]}
        for e, columns in zip(entries, cutter.columns, strict=True)
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
        f"{len(aside)} files set aside{' (see quarantine.json)' if aside else ''}\n"
    )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise decode.Unusable(f"cannot be read: {error.strerror}") from None


def _photo_of(key: str) -> str:
    return key.split("-", 1)[0]


def _is_one_of(photo: Image.Image, hashes: list[str]) -> bool:
    own = int(fingerprint(photo), 16)
    return any((own ^ int(other, 16)).bit_count() <= SAME_PICTURE for other in hashes)


def fingerprint(photo: Image.Image) -> str:
    """Difference hash of a whole photograph, taken on a thumbnail: floats of a large one would fill the memory."""
    return str(manifest.statistics(np.asarray(photo.resize((72, 64), Image.Resampling.BOX)))["dhash"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="a folder of photographs, or a YAML list of them")
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    collect(arguments.source, arguments.out, params.load(Photos, "photos"))


if __name__ == "__main__":
    entry.run(main)
