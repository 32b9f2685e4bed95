"""A photograph that arrived, measured: tiles as the stage `photos` will cut them, their statistics, depth consistency.

Statistics are histograms, because those of several batches add up.

Depth consistency is how much a depth model disagrees with itself about a picture and its mirror image. A model that
knows what it sees gives a mirrored picture a mirrored depth. On pictures unlike those it learned from it does so less,
and no label is needed to notice. Of a tile x with prediction d(x), brought to median 0 and mean absolute deviation 1 as
Depth Anything's loss has it, the disagreement is the mean of |d(x) - mirror(d(mirror(x)))|.

The tiles of one photograph are alike, so that a photograph counts once, with the mean of its tiles. New ones are held
against those that training held out: `excess` is the probability that a new one confuses the model more than a held-out
one (Mann and Whitney's U / nm), less what chance alone gives, which is much where few were held out. 0.5 is no
difference; 0.65 means that two of three pairs have the new one behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from data.core import manifest
from data.photos import crops, decode
from data.photos.params import Photos
from data.validate import drift

TILES = 16  # of each photograph, coarse ones first, whatever a run then cuts
CHANCE = 1.645  # standard errors: of looks at one population, one in twenty shows more


@dataclass(frozen=True)
class Measured:
    """Some tiles of a photograph, uint8 (N, size, size, 3), and for each the manifest's columns that drift looks at."""

    tiles: np.ndarray
    brightness: np.ndarray  # (N,), 0..1
    contrast: np.ndarray  # (N,), 0..0.5


def measure(path: Path, sha256: str, cut: Photos) -> Measured:
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


def histograms(brightness: ArrayLike, contrast: ArrayLike) -> dict[str, list[int]]:
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


def disagreement(net: Any, tiles: np.ndarray) -> list[float]:
    """How much a depth net disagrees with itself about each tile, uint8 (N, H, W, 3); 0 is not at all."""
    from models.depth.net import predict

    straight = _normal(predict(net, tiles))  # (N, H, W)
    mirrored = _normal(predict(net, np.ascontiguousarray(tiles[:, :, ::-1])))[:, :, ::-1]
    return [float(value) for value in np.abs(straight - mirrored).mean(axis=(1, 2))]


def excess(new: Sequence[float], held_out: Sequence[float]) -> float:
    """The probability that a new photograph confuses more than a held-out one, less chance, 0.5 at least."""
    n, m = len(new), len(held_out)
    if not n or not m:
        return 0.5
    both = np.concatenate([np.asarray(new), np.asarray(held_out)])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # ties share the mean of their ranks
    probability = (ranks[:n].sum() - n * (n + 1) / 2) / (n * m)
    error = np.sqrt((n + m + 1) / (12 * n * m))
    return max(0.5, float(probability - CHANCE * error))


def _normal(disparity: np.ndarray) -> np.ndarray:
    """Each map (N, H, W) with median 0 and mean absolute deviation 1: depth is known up to scale and shift."""
    centred = disparity - np.median(disparity, axis=(1, 2), keepdims=True)
    spread = np.abs(centred).mean(axis=(1, 2), keepdims=True)
    return centred / np.maximum(spread, 1e-6)
