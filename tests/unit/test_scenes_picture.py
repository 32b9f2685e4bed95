"""Denoiser, tone curve and the check for degenerate samples, on synthetic input."""

import numpy as np

from data.scenes.denoise import denoise
from data.scenes.renderer import Render
from data.scenes.sample import fault
from data.scenes.tonemap import tonemap


def two_walls(noise: float) -> tuple[Render, np.ndarray]:
    """Left half red, right half blue, lit alike, with multiplicative noise; and the clean radiance."""
    random = np.random.default_rng(0)
    albedo = np.zeros((32, 32, 3))
    albedo[:, :16], albedo[:, 16:] = (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)
    clean = 0.7 * albedo
    noisy = clean * (1 + noise * random.standard_normal((32, 32, 1)))
    flat = np.ones((32, 32))
    return Render(np.maximum(noisy, 0), 3 * flat, albedo, np.tile([0.0, 0, 1], (32, 32, 1)), 3 * flat), clean


def test_the_denoiser_leaves_a_clean_picture_as_it_is():
    render, clean = two_walls(noise=0)
    inside = np.abs(denoise(render) - clean)[:, np.abs(np.arange(32) - 15.5) > 2]  # the pixel filter softens the edge
    assert np.allclose(inside, 0)


def test_the_denoiser_takes_most_of_the_noise_and_keeps_the_edge():
    render, clean = two_walls(noise=0.2)
    before = np.abs(render.radiance - clean).mean()
    after = np.abs(denoise(render) - clean)
    assert after[:, :14].mean() < 0.35 * before
    assert after[:, :14].max() < 0.1  # nothing of the blue wall reaches the red one


def test_a_lone_firefly_disappears():
    render, clean = two_walls(noise=0)
    render.radiance[10, 5] = 500.0
    assert np.abs(denoise(render) - clean)[:, :14].max() < 0.01


def test_the_tone_curve_keeps_order_and_uses_the_range():
    ramp = np.linspace(0.01, 2, 64)[None, :, None] * np.ones((64, 1, 3))
    grey = tonemap(ramp)[0, :, 0].astype(int)
    assert (np.diff(grey) >= 0).all()
    assert grey[0] < 60
    assert grey[-1] > 225


def test_exposure_does_not_depend_on_the_strength_of_the_light():
    ramp = np.linspace(0.1, 2, 64)[None, :, None] * np.ones((64, 1, 3))
    assert np.abs(tonemap(ramp).astype(int) - tonemap(10 * ramp).astype(int)).max() <= 3


def test_degenerate_samples_are_named():
    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    good = np.tile(np.linspace(2, 8, 32), (32, 1))
    assert fault(picture, good) is None
    assert fault(picture, 0 * good) == "mostly sky"
    assert fault(picture, np.full_like(good, 3.0)) == "no depth range"
    assert fault(picture, 0.1 * good) == "camera inside or right before something"
    assert fault(0 * picture, good) == "too flat, dark or bright"
