"""Tiles of one photograph after the other, and what is said of those that give none."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.core import manifest, samples
from data.core.params import UserError
from data.photos import benchmark, crops, decode
from data.photos.params import Photos
from data.photos.sources import Photo

SAME_PICTURE = 3  # bits of 64 in which the difference hashes of two copies of a picture may differ
Tile = tuple[str, dict[str, bytes], dict[str, Any]]  # key, members, columns of the manifest


@dataclass(frozen=True)
class SetAside:
    """A file that gives no tiles, and why; `bad` if that is the file's fault (as of a copy it is not)."""

    name: str
    reason: str
    bad: bool = True


class Cutter:
    """Cuts photographs; holds what was set aside, and how many tiles were flat."""

    def __init__(self, p: Photos) -> None:
        self.params = p
        self.held_out = [fingerprint(Image.fromarray(view)) for view in benchmark.views()]  # must not come in
        self.aside: list[SetAside] = []
        self.flat = 0

    def tiles(self, source: Photo, key: str, wanted: int, skipped: int = 0) -> Iterator[tuple[int, Tile]]:
        """The chosen tiles of a photograph with their numbers, from one number on. Raises decode.Unusable.

        key: of its bytes, so that no name or place changes its tiles.
        """
        photo = decode.load(source.path, self.params.max_pixels)
        if not crops.count(*photo.size, self.params.size):
            raise decode.Unusable(f"has {photo.width} x {photo.height} pixels, less than a tile of {self.params.size}")
        if _is_one_of(photo, self.held_out):
            self.aside.append(SetAside(source.name, "is the depth benchmark, which is held out", bad=False))
            return
        given = bool(skipped)
        chosen = crops.choose(*photo.size, self.params.size, wanted, self.params.seed + int(key, 16))
        for number, (tile, pixels) in enumerate(crops.cut(photo, chosen[skipped:], self.params.size), start=skipped):
            facts = manifest.picture(pixels)
            if facts["contrast"] < self.params.min_contrast:
                self.flat += 1
                continue
            given = True
            about = {"photo": source.name, "level": tile.level, "row": tile.row, "column": tile.column}
            members = {"rgb.png": samples.encode_png(pixels), "json": json.dumps(about, sort_keys=True).encode()}
            yield number, (f"{key}-{tile.name}", members, {**facts, "source": source.name, "licence": source.licence})
        if not given:
            self.aside.append(SetAside(source.name, "no tile with enough contrast", bad=False))


def quarantine(aside: list[SetAside], out: Path) -> None:
    """Write what was set aside to quarantine.json, and say it: the stage's words stay, also those of one that fails."""
    write_json(out / "quarantine.json", [{"name": one.name, "reason": one.reason} for one in aside])
    for one in aside:
        sys.stderr.write(f"photos: set aside: {one.name!r} {one.reason}\n")


def check_share(aside: list[SetAside], files: int, max_bad_share: float) -> None:
    """Raise UserError when more than the allowed share of the files is bad, naming the first ones."""
    bad = [a for a in aside if a.bad]
    if len(bad) > max_bad_share * files:
        shown = "; ".join(f"{a.name!r} {a.reason}" for a in bad[:3])
        raise UserError(
            f"{len(bad)} of {files} files cannot be used, more than photos.max_bad_share = {max_bad_share}: {shown}"
            f"{'; ...' if len(bad) > 3 else ''}. Remove them (all are named above) or raise the share"
        )


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _is_one_of(photo: Image.Image, hashes: list[str]) -> bool:
    own = int(fingerprint(photo), 16)
    return any((own ^ int(other, 16)).bit_count() <= SAME_PICTURE for other in hashes)


def fingerprint(photo: Image.Image) -> str:
    """Difference hash of a whole photograph, taken on a thumbnail: floats of a large one would fill the memory."""
    return str(manifest.statistics(np.asarray(photo.resize((72, 64), Image.Resampling.BOX)))["dhash"])
