"""One finished sample: scene to picture and exact depth, redrawn while it is degenerate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.scenes.denoise import denoise
from data.scenes.grammar import NAMES, compose
from data.scenes.renderer import render
from data.scenes.tonemap import tonemap

ATTEMPTS = 12


@dataclass(frozen=True)
class Sample:
    """A picture (H, W, 3) uint8, its depth (H, W) in metres with 0 = sky, and the record that goes with them."""

    picture: np.ndarray
    depth: np.ndarray
    record: dict

    @property
    def near(self) -> float:
        """The near plane: the smallest depth in the picture, which gets disparity 1."""
        return float(self.depth[self.depth > 0].min())

    def disparity(self) -> np.ndarray:
        """near / z in [0, 1], 0 = sky, (H, W)."""
        return np.where(self.depth > 0, self.near / np.maximum(self.depth, 1e-9), 0.0)


def make(seed: int, index: int, size: int, samples_per_pixel: int) -> Sample:
    """The sample of an index: a function of its arguments alone."""
    for attempt in range(ATTEMPTS):
        scene = compose(seed, index, attempt)
        noise = int(np.random.SeedSequence([seed, index, attempt, 99]).generate_state(1)[0])
        seen = render(scene, size, samples_per_pixel, noise)
        if not np.isfinite(seen.radiance).all():
            continue
        picture = tonemap(denoise(seen))
        if fault(picture, seen.depth) is None:
            record = {
                "label": index % len(NAMES),
                "class": NAMES[index % len(NAMES)],
                "palette": scene.palette,
                "attempt": attempt,
                "camera": scene.camera.record(),
            }
            return Sample(picture, seen.depth, record)
    raise RuntimeError(f"scene {index} of seed {seed} stayed degenerate in {ATTEMPTS} attempts")


def fault(picture: np.ndarray, depth: np.ndarray) -> str | None:
    """Why a sample teaches nothing (None when it is fine): something right before the lens, empty, flat or dark."""
    valid = depth[depth > 0]
    if valid.size < 0.3 * depth.size:
        return "mostly sky"
    if valid.min() < 0.5:
        return "camera inside or right before something"
    low, high = np.percentile(1 / valid, [5, 95])
    if high < 1.5 * low:
        return "no depth range"
    luma = picture.mean(axis=-1)
    if luma.std() < 12 or not 25 < luma.mean() < 235:
        return "too flat, dark or bright"
    return None
