"""A photograph that arrived, measured as the stage `photos` will cut it: some tiles, their statistics.

Statistics are histograms, because those of several batches add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.core import manifest
from data.photos import crops, decode
from data.validate import drift

TILES = 16  # of each photograph, coarse ones first, whatever a run then cuts


@dataclass(frozen=True)
class Cut:
    """How photographs are cut: section `photos` of params.yaml."""

    size: int  # side of a tile in pixels
    max_pixels: int
    min_contrast: float
    seed: int


@dataclass(frozen=True)
class Measured:
    """Some tiles of a photograph, uint8 (N, size, size, 3), and for each the manifest's columns that drift looks at."""

    tiles: np.ndarray
    brightness: np.ndarray  # (N,), 0..1
    contrast: np.ndarray  # (N,), 0..0.5


def measure(path: Path, sha256: str, cut: Cut) -> Measured:
    """Decode a photograph, wholly, and cut its tiles; decode.Unusable says why it is none for us."""
    width, height = decode.size_of(path, cut.max_pixels)
    if not crops.count(width, height, cut.size):
        raise decode.Unusable(f"has {width} x {height} pixels, less than a tile of {cut.size}")
    photo = decode.load(path, cut.max_pixels)
    wanted = min(TILES, crops.count(*photo.size, cut.size))
    chosen = crops.choose(*photo.size, cut.size, wanted, cut.seed + int(sha256[:12], 16))
    tiles = np.stack([pixels for _, pixels in crops.cut(photo, chosen, cut.size)])
    brightness, contrast = statistics(tiles)
    kept = contrast >= cut.min_contrast
    if not kept.any():
        raise decode.Unusable("is empty sky or wall: no tile of it has any contrast")
    return Measured(tiles[kept], brightness[kept], contrast[kept])


def statistics(tiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brightness and contrast of tiles, uint8 (N, H, W, 3), as `data.core.manifest`, whose hash takes longer."""
    luma = manifest.luma(tiles)
    return luma.mean(axis=(1, 2)) / manifest.WHITE, luma.std(axis=(1, 2)) / manifest.WHITE


def histograms(brightness: Sequence[float], contrast: Sequence[float]) -> dict[str, list[int]]:
    """{"brightness": 100 counts, "contrast": 100 counts} of tiles, as the stage `validate` makes them."""
    values = {"brightness": brightness, "contrast": contrast}
    return {
        column: np.histogram(values[column], bins=drift.FINE, range=(0, largest))[0].tolist()
        for column, largest in drift.COLUMNS.items()
    }


def added(several: Iterable[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    """The histograms of all tiles together."""
    total = {column: np.zeros(drift.FINE, dtype=np.int64) for column in drift.COLUMNS}
    for one in several:
        for column, counts in one.items():
            total[column] += np.array(counts, dtype=np.int64)
    return {column: counts.tolist() for column, counts in total.items()}
