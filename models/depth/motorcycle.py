"""The motorcycle photograph (Middlebury 2014): a real picture with measured depth, kept out of all training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from data.core.params import UserError
from models.core.figures import colour_depth, tile
from models.depth import net, panels
from models.metrics import depth as metrics

SHOWN = (250, 370)  # height and width of the pictures in the panel


@dataclass(frozen=True)
class Photograph:
    """`image` is uint8 (H, W, 3); `truth` float64 (H, W), nearest distance over distance, 0 where not measured."""

    image: np.ndarray
    truth: np.ndarray


def read(photos: Path) -> Photograph:
    """The benchmark in the photos' folder; UserError when it is not there."""
    folder = photos / "benchmark"
    try:
        image = np.asarray(Image.open(folder / "motorcycle.png").convert("RGB"))
        inverse = np.load(folder / "motorcycle.npy", allow_pickle=False).astype(np.float64)  # 1/m
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist; run the stage photos again") from None
    return Photograph(image, inverse / inverse.max())


def predict(model: nn.Module, photograph: Photograph, size: tuple[int, ...]) -> np.ndarray:
    """Disparity (H, W) in the photograph's own size, from the whole picture reduced to `size` (height, width).

    The nets know objects at the scale of their training pictures; at 500 x 741 pixels all they see is texture.
    """
    height, width = size
    small = Image.fromarray(photograph.image).resize((width, height), Image.Resampling.LANCZOS)
    return resized(net.predict(model, np.asarray(small)[None])[0], photograph.truth.shape)


def measure(disparity: np.ndarray, photograph: Photograph) -> dict[str, float]:
    """Errors of a disparity (H, W), and of the best tilted plane, which anybody can say without looking."""
    truth = photograph.truth
    valid = truth > 0
    found = metrics.errors(metrics.align(disparity, truth, valid), truth)
    flat = metrics.errors(metrics.plane(truth, valid), truth)
    return {
        "motorcycle_abs_rel": found["abs_rel"],
        "motorcycle_delta1": found["delta1"],
        "motorcycle_plane_abs_rel": flat["abs_rel"],
        "motorcycle_plane_delta1": flat["delta1"],
    }


def panel(photograph: Photograph, predictions: dict[str, np.ndarray]) -> Image.Image:
    """image | each model's disparity | best plane | truth."""
    truth = photograph.truth
    maps = {**predictions, "best plane": metrics.plane(truth, truth > 0)}
    height, width = SHOWN
    image = np.asarray(Image.fromarray(photograph.image).resize((width, height), Image.Resampling.LANCZOS))
    pictures = [image, *(half(panels.like(m, truth)) for m in maps.values()), half(colour_depth(truth))]
    captions = ["image", *maps, "truth"]
    return tile(np.stack(pictures), columns=len(pictures), scale=1, captions=captions)


def half(colours: np.ndarray) -> np.ndarray:
    height, width = SHOWN
    return np.asarray(Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST))


def resized(disparity: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A disparity (h, w) at another (height, width), bilinear."""
    return np.asarray(Image.fromarray(disparity).resize(shape[::-1], Image.Resampling.BILINEAR))
