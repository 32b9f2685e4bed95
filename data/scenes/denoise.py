"""Noise out of a path-traced image: an edge-avoiding a-trous wavelet filter steered by noise-free guides.

After Dammertz et al. 2010 (Edge-Avoiding A-Trous Wavelet Transform for fast Global Illumination Filtering).
Colour is filtered after division by albedo, so surface colour is never blurred.
"""

from __future__ import annotations

import numpy as np

from data.core.elementary import exp, log
from data.scenes.renderer import Render

KERNEL = (1 / 16, 1 / 4, 3 / 8, 1 / 4, 1 / 16)
STEPS = (1, 2, 4)


def denoise(render: Render, strength: float = 1.0) -> np.ndarray:
    """Filtered radiance, (H, W, 3); where there is no albedo (glass, mirrors, sky) only like pixels are averaged."""
    plain = render.albedo.max(axis=-1, keepdims=True) > 1e-3
    base = np.where(plain, np.maximum(render.albedo, 0.02), 1.0)
    light = _despeckled(render.radiance) / base
    tone = log(1 + light)  # compresses fireflies, which would outweigh their neighbours
    guides = np.concatenate(
        [
            render.normal / 0.25,
            log(np.maximum(render.guide_depth, 0.1))[..., None] / 0.08,
            render.albedo / 0.15,
        ],
        axis=-1,
    )
    sigma = 0.45 * strength
    for step in STEPS:
        tone = _pass(tone, guides, plain[..., 0], step, sigma)
        sigma *= 0.6
    return _pixel_filter((exp(tone) - 1) * base)


def _despeckled(radiance: np.ndarray) -> np.ndarray:
    """No pixel brighter than the second brightest of its eight neighbours: lone fireflies go, lines stay."""
    height, width = radiance.shape[:2]
    padded = np.pad(radiance, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = [padded[i : i + height, j : j + width] for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    second = np.partition(np.stack(around), -2, axis=0)[-2]
    return np.minimum(radiance, second)


def _pixel_filter(radiance: np.ndarray) -> np.ndarray:
    """The usual Gaussian pixel filter (deviation half a pixel); after denoising, for it would correlate the noise."""
    side = exp(-2.0) / (1 + 2 * exp(-2.0))
    for axis in (0, 1):
        padded = np.pad(radiance, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, after = np.split(padded, [2], axis)[1], np.split(padded, [-2], axis)[0]
        radiance = (1 - 2 * side) * radiance + side * (before + after)
    return radiance


def _pass(tone: np.ndarray, guides: np.ndarray, plain: np.ndarray, step: int, sigma: float) -> np.ndarray:
    height, width = plain.shape
    reach = 2 * step
    edge = ((reach, reach), (reach, reach), (0, 0))
    tones, leads = np.pad(tone, edge, mode="edge"), np.pad(guides, edge, mode="edge")
    kinds = np.pad(plain, edge[:2], mode="edge")
    total, weights = np.zeros_like(tone), np.zeros((height, width, 1))
    widths = np.where(plain, sigma, 0.3 * sigma)  # what a mirror or a glass shows is known from its colour alone
    for i, a in enumerate(KERNEL):
        for j, b in enumerate(KERNEL):
            rows, columns = slice(i * step, i * step + height), slice(j * step, j * step + width)
            there = tones[rows, columns]
            apart = ((leads[rows, columns] - guides) ** 2).sum(-1)
            apart = apart + ((there - tone) ** 2).sum(-1) / widths**2
            weight = (a * b * exp(-0.5 * apart) * (kinds[rows, columns] == plain))[..., None]
            total += weight * there
            weights += weight
    return total / weights
