"""Pictures out of arrays: labelled grids, coloured depth and a chart of ranks, with Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK = (255, 255, 255), (32, 36, 44)
PALE, BAR = (214, 219, 227), (48, 110, 190)
SKY = np.array([24, 26, 38], dtype=np.uint8)
# Turbo (Mikhailov 2019), nine of its colours; between them we interpolate
_TURBO = np.array(
    [
        [48, 18, 59], [70, 107, 227], [40, 187, 236], [49, 242, 153], [162, 252, 60],
        [237, 208, 58], [251, 128, 34], [210, 49, 5], [122, 4, 3],
    ],
    dtype=np.float64,
)  # fmt: skip


def tile(
    images: np.ndarray,
    columns: int,
    scale: int = 2,
    captions: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
) -> Image.Image:
    """A grid of uint8 (N, H, W, 3) pictures, row by row, enlarged by whole pixels.

    `captions` stand above the columns, `row_labels` left of the rows.
    """
    images = np.asarray(images)
    height, width = images.shape[1] * scale, images.shape[2] * scale
    rows = -(-len(images) // columns)
    font = ImageFont.load_default(size=15)
    left = 14 + max(int(font.getlength(label)) for label in row_labels) if row_labels else 0
    top = 26 if captions else 0
    gap = 4
    sheet = Image.new("RGB", (left + columns * (width + gap) + gap, top + rows * (height + gap) + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, text in enumerate(captions or ()):
        draw.text((left + gap + column * (width + gap) + width // 2, 13), text, INK, font, anchor="mm")
    for row, text in enumerate(row_labels or ()):
        draw.text((left - 6, top + gap + row * (height + gap) + height // 2), text, INK, font, anchor="rm")
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        enlarged = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (left + gap + column * (width + gap), top + gap + row * (height + gap)))
    return sheet


def colour_depth(disparity: np.ndarray) -> np.ndarray:
    """float (..., H, W) disparity as uint8 RGB (..., H, W, 3): near is red, far is blue, 0 (sky) is dark.

    Each picture is stretched between its own 2nd and 98th percentile of valid pixels.
    """
    disparity = np.asarray(disparity, dtype=np.float64)
    if disparity.ndim > 2:
        return np.stack([colour_depth(d) for d in disparity])
    valid = disparity > 0
    if not valid.any():
        return np.broadcast_to(SKY, (*disparity.shape, 3)).copy()
    low, high = np.percentile(disparity[valid], (2, 98))
    unit = np.clip((disparity - low) / max(high - low, 1e-9), 0, 1)
    place = np.linspace(0, 1, len(_TURBO))
    colours = np.stack([np.interp(unit, place, _TURBO[:, c]) for c in range(3)], axis=-1)
    return np.where(valid[..., None], colours.round().astype(np.uint8), SKY)


def ranked(values: np.ndarray, title: str, x: str, y: str, level: tuple[float, str]) -> Image.Image:
    """A bar chart of falling values, with named axes, a title, and a dashed line at a `level` to compare with."""
    left, top, height, bottom = 70, 44, 260, 52
    bar = max(1, 640 // len(values))
    width, floor = bar * len(values), top + height
    step = tick(float(values[0]))
    highest = step * max(1, math.ceil(values[0] / step))
    sheet = Image.new("RGB", (left + width + 24, floor + bottom), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)

    def at(value: float) -> float:
        return floor - height * value / highest

    for k in range(round(highest / step) + 1):
        draw.line([(left - 4, at(k * step)), (left + width, at(k * step))], PALE)
        draw.text((left - 8, at(k * step)), f"{k * step:g}", INK, font, anchor="rm")
    for rank, value in enumerate(values):
        if value > 0:
            draw.rectangle([left + rank * bar, at(value), left + (rank + 1) * bar - 1, floor], BAR)
    for dash in range(left, left + width, 8):
        draw.line([(dash, at(level[0])), (dash + 3, at(level[0]))], INK)
    draw.text((left + width, at(level[0]) - 3), level[1], INK, font, anchor="rs")
    for rank in {1, *(max(1, len(values) * k // 4) for k in range(1, 5))}:
        draw.line([(left + (rank - 0.5) * bar, floor), (left + (rank - 0.5) * bar, floor + 4)], INK)
        draw.text((left + (rank - 0.5) * bar, floor + 6), f"{rank:,}", INK, font, anchor="ma")
    draw.line([(left, floor), (left + width, floor)], INK)
    draw.text((left + width / 2, floor + 28), x, INK, font, anchor="ma")
    draw.text((8, 16), y, INK, font, anchor="lm")
    draw.text((left + width / 2, 16), title, INK, ImageFont.load_default(size=17), anchor="mm")
    return sheet


def tick(highest: float, about: int = 5) -> float:
    """The distance of round axis marks, 1, 2 or 5 times a power of ten, of which some `about` reach `highest`."""
    rough = max(highest, 1e-9) / about
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
