"""From radiance to the eight bits of a picture: exposure from the picture itself, a filmic shoulder, sRGB."""

from __future__ import annotations

import numpy as np


def tonemap(radiance: np.ndarray) -> np.ndarray:
    """An sRGB picture (H, W, 3) uint8 of linear radiance; the middle and the bright end always land in the same range."""
    luminance = radiance @ np.array([0.2126, 0.7152, 0.0722])
    middle = np.exp(np.log(luminance + 1e-3).mean())
    bright = np.percentile(luminance, 98)
    exposure = np.sqrt((0.22 / middle) * (0.95 / max(bright, 1e-6)))
    exposed = radiance * exposure
    shoulder = exposed * (1 + exposed / 4.0) / (1 + exposed * 0.55)  # Reinhard's curve with a soft white
    shoulder = np.clip(shoulder * 1.12, 0, 1)
    encoded = np.where(shoulder <= 0.0031308, 12.92 * shoulder, 1.055 * shoulder ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)
