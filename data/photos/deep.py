"""Grey pictures of more than eight bits: which value is white, by the type of the values and what the file says.

Whole numbers of 12 and 16 bits use all of their range. Floating-point ones go from 0 to 1 by convention; what
sharpening left a little beyond is clipped. A few programs write 0 to 255 as floating point, and then nearly all of
a photograph lies beyond 1. Whatever else there is (elevations, radiances, 32 bits of something) is not guessed at: the
wrong scale makes a black or white picture that nobody would notice in training.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

BITS, PHOTOMETRIC, FORMAT, WHITEST = 258, 262, 339, 341  # tags of TIFF; the last is SMaxSampleValue
SIGNED, FLOAT = 2, 3  # values of FORMAT
FEW = 0.01  # share of the pixels that may be outside of the range, or no numbers
WHITES = (1, 255, 1023, 4095, 65_535, 2**32 - 1)  # of that tag; some write the largest value that occurs
OVERSHOOT = 1.5  # times white
BRIGHT = 0.5  # share of the pixels beyond 1 from which on the values cannot go from 0 to 1


class Ambiguous(Exception):
    """Why it cannot be known how bright the pixels are, in a few words."""


def grey(picture: Image.Image) -> Image.Image:
    """A picture of Pillow's modes I, I;16 or F in eight bits; Ambiguous where a value could mean several."""
    tags = getattr(picture, "tag_v2", {})
    white = _first(tags.get(WHITEST))
    white = white if white in WHITES else None
    if picture.mode == "F":
        found = _from_floats(np.asarray(picture), white)
    else:
        bits = int(_first(tags.get(BITS)) or 16)
        if _first(tags.get(FORMAT)) == SIGNED:
            raise Ambiguous("has signed values and does not say which of them is black; save it in 8 or 16 bits")
        found = _from_whole_numbers(np.asarray(picture), bits, white)
    return Image.fromarray(255 - found if tags.get(PHOTOMETRIC) == 0 else found)  # 0: white is zero


def _from_whole_numbers(values: np.ndarray, bits: int, white: float | None) -> np.ndarray:
    if bits <= 16:  # a table, as arithmetic on a large photograph would take gigabytes
        largest = (1 << bits) - 1
        table = np.round(np.arange(1 << bits) * (255 / largest)).astype(np.uint8)
        return table[np.clip(values, 0, largest)]
    values = values.astype(np.int32).view(np.uint32)  # Pillow has only signed ones
    if white is None:
        if (top := int(values.max(initial=0))) < 2**31:
            raise Ambiguous(f"has {bits}-bit values up to {top:,} and does not say which is white; save it in 16 bits")
        white = 2**32 - 1
    return np.round(np.clip(values / white, 0, 1) * 255).astype(np.uint8)


def _from_floats(values: np.ndarray, white: float | None) -> np.ndarray:
    finite = np.isfinite(values)
    if (missing := 1 - finite.mean()) > FEW:
        raise Ambiguous(f"has {missing:.0%} pixels that are no numbers; save it in 8 or 16 bits")
    values = np.where(finite, values, 0)
    least, largest = float(values.min(initial=0)), float(values.max(initial=0))
    said = f"has floating-point values from {least:.4g} to {largest:.4g}"
    if white is None:
        beyond = float((values > 1).mean())
        if largest <= OVERSHOOT and beyond <= FEW:
            white = 1.0
        elif 2 * OVERSHOOT < largest <= 255 and beyond >= BRIGHT:
            white = 255.0
        else:
            raise Ambiguous(f"{said} and does not say which is white; save it as 0 to 1, or in 8 or 16 bits")
    if (values < -0.01 * white).mean() > FEW:
        raise Ambiguous(f"{said}, of which those below black have no meaning; save it as 0 to 1, or in 8 or 16 bits")
    return np.round(np.clip(values / white, 0, 1) * 255).astype(np.uint8)


def _first(value: object) -> float | None:
    """A tag's first value as a number; None where there is none, or it is no number."""
    if isinstance(value, tuple):
        value = value[0] if value else None
    try:
        return None if value is None else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
