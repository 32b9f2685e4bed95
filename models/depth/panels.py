"""Pictures of depth: image, predictions and truth side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from data.core.samples import Samples
from models.core.figures import colour_depth, tile
from models.metrics.depth import align


def by_class(samples: Samples, predictions: Mapping[str, np.ndarray], per_class: int = 2) -> Image.Image:
    """One row per class: image | each model's disparity (N, H, W) | truth, for the first samples of the class.

    Predictions are aligned to the truth before they are coloured, so that equal colours mean equal depths.
    """
    tiles, classes = [], sorted(set(samples.labels.tolist()))
    for label in classes:
        chosen = np.flatnonzero(samples.labels == label)[:per_class]
        for slot in range(per_class):
            i = int(chosen[min(slot, len(chosen) - 1)])
            truth = samples.disparity(i)
            tiles += [samples.image(i), *(like(p[i], truth) for p in predictions.values()), colour_depth(truth)]
    captions = ["image", *predictions, "truth"] * per_class
    names = [samples.class_names[label] if samples.class_names else str(label) for label in classes]
    return tile(np.stack(tiles), columns=len(captions), scale=2, captions=captions, row_labels=names)


def beside(images: np.ndarray, *disparities: np.ndarray, columns: int = 4) -> Image.Image:
    """Images uint8 (N, H, W, 3), each beside its disparities (N, H, W); `columns` images in a row."""
    pictures = [images, *(colour_depth(d) for d in disparities)]
    tiles = np.stack(pictures, axis=1).reshape(-1, *images.shape[1:])
    return tile(tiles, columns=columns * len(pictures), scale=2)


def like(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A prediction (H, W) in the colours of its truth: aligned where there is a truth, on the truth's own range."""
    valid = truth > 0
    low, high = np.percentile(truth[valid], (2, 98))
    aligned = align(prediction, truth, valid)
    shown = np.where(aligned > low / 2, np.clip(aligned, low, high), 0)  # much farther than anything seen: sky
    return colour_depth(shown)
