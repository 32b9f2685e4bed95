"""From radiance to the eight bits of a picture: exposure from the picture itself, a filmic shoulder, sRGB."""

from __future__ import annotations

import numpy as np

from data.core.elementary import exp, log, power

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear sRGB


def tonemap(radiance: np.ndarray) -> np.ndarray:
    """An sRGB picture (H, W, 3) uint8 of linear radiance, whatever the strength of the light."""
    luminance = (radiance * LUMINANCE).sum(axis=-1)
    middle = exp(log(luminance + 1e-3).mean())
    bright = np.percentile(luminance, 98)
    exposure = power(0.24 / middle, 0.45) * power(1.15 / max(bright, 1e-6), 0.55)
    exposed = radiance * exposure
    shoulder = exposed * (1 + exposed / 4.0) / (1 + exposed * 0.55)  # Reinhard's curve with a soft white
    shoulder = np.clip(shoulder * 1.12, 0, 1)
    grey = (shoulder * LUMINANCE).sum(axis=-1, keepdims=True)
    shoulder = np.clip(grey + 1.05 * (shoulder - grey), 0, 1)  # the shoulder pales colours: give that back
    encoded = np.where(shoulder <= 0.0031308, 12.92 * shoulder, 1.055 * power(shoulder, 1 / 2.4) - 0.055)
    return np.round((0.03 + 0.94 * encoded) * 255).astype(np.uint8)
