"""Depth consistency: how much a depth model disagrees with itself about a picture and its mirror image.

A model that knows what it sees gives a mirrored picture a mirrored depth. On pictures unlike those it learned from it
does so less, and no label is needed to notice. Of a tile x with prediction d(x), brought to median 0 and mean absolute
deviation 1 as Depth Anything's loss has it, the disagreement is the mean of |d(x) - mirror(d(mirror(x)))|.

The tiles of one photograph are alike, so that a photograph counts once, with the mean of its tiles. New ones are held
against those that training held out: `excess` is the probability that a new one confuses the model more than a held-out
one (Mann and Whitney's U / nm), less what chance alone gives, which is much where few were held out. 0.5 is no
difference; 0.65 means that two of three pairs have the new one behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

CHANCE = 1.645  # standard errors: of looks at one population, one in twenty shows more


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
