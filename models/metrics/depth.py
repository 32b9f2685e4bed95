"""Measures of relative depth: predictions are disparities known up to scale and shift, truths are disparities.

A truth is near/z in (0, 1] with 0 where nothing is known or the ray meets no surface (sky); such pixels do not count.
Depths are in units of each picture's nearest distance.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

FARTHEST = 20.0  # depths beyond 20 times the nearest count as 20 times (MiDaS and Depth Anything cap at 10 m and 80 m)
PAIRS = 256  # point pairs drawn per picture
CLEAR = 1.25  # a pair is asked about when one point is at least this much farther


def align(prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """scale * prediction + shift that is nearest to `truth` by least squares over `valid`, in disparity (H, W)."""
    x, y = prediction[valid].astype(np.float64), truth[valid].astype(np.float64)
    spread = x - x.mean()
    variance = (spread**2).mean()
    scale = (spread * (y - y.mean())).mean() / variance if variance > 0 else 0.0
    return scale * (prediction.astype(np.float64) - x.mean()) + y.mean()


def plane(truth: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The best tilted plane for `truth`: the a + b * row + c * column nearest by least squares over `valid` (H, W).

    A plane in space has a disparity that is affine in the picture's coordinates. Fitted to the truth itself, this is
    the best that can be said without looking at the picture: a net that does not beat it has seen nothing.
    """
    rows, columns = np.mgrid[: truth.shape[0], : truth.shape[1]]
    terms = np.stack([np.ones(truth.shape), rows, columns], axis=-1).astype(np.float64)  # (H, W, 3)
    factors, *_ = np.linalg.lstsq(terms[valid], truth[valid].astype(np.float64), rcond=None)
    return terms @ factors


def errors(aligned: np.ndarray, truth: np.ndarray, farthest: float = FARTHEST) -> dict[str, float]:
    """abs_rel, delta1 and rmse of an aligned disparity (H, W) against the truth, over the truth's valid pixels."""
    valid = truth > 0
    expected = np.minimum(1 / truth[valid].astype(np.float64), farthest)
    found = 1 / np.clip(aligned[valid], 1 / farthest, None)
    ratio = np.maximum(found / expected, expected / found)
    return {
        "abs_rel": float((np.abs(found - expected) / expected).mean()),
        "delta1": float((ratio < 1.25).mean()),
        "rmse": float(np.sqrt(((found - expected) ** 2).mean())),
    }


def pair_accuracy(prediction: np.ndarray, truth: np.ndarray, seed: int, pairs: int = PAIRS) -> float:
    """Percentage of point pairs put in the right order (DA-2K's protocol); NaN for a picture without a clear pair.

    The pairs are drawn from `seed` among the valid pixels of the truth (H, W) and kept where the depths differ by a
    factor of at least 1.25, as annotators are asked about clear pairs only. A tie counts as wrong.
    """
    where = np.flatnonzero(truth > 0)
    if len(where) == 0:
        return float("nan")
    first, second = np.random.default_rng(seed).choice(where, size=(2, pairs))
    a, b = truth.ravel()[first], truth.ravel()[second]
    clear = np.maximum(a, b) >= CLEAR * np.minimum(a, b)
    order = np.sign(prediction.ravel()[first] - prediction.ravel()[second]) == np.sign(a - b)
    return float(100 * order[clear].mean()) if clear.any() else float("nan")


def scores(prediction: np.ndarray, truth: np.ndarray, seed: int) -> Iterator[tuple[str, float]]:
    """Every measure of one picture: (name, value) for abs_rel, delta1, rmse and pair_accuracy."""
    yield from errors(align(prediction, truth, truth > 0), truth).items()
    yield "pair_accuracy", pair_accuracy(prediction, truth, seed)
