"""Depth consistency: a model's disagreement with itself, and whether new pictures raise it by more than chance."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flows.arrivals.measure import disagreement, excess

TILES = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)


class Net(torch.nn.Module):
    """Predicts disparity by a function of the pixels, (B, 3, H, W) -> (B, H, W)."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.config = SimpleNamespace(patch_size=8)

    def forward(self, pixel_values):
        return SimpleNamespace(predicted_depth=self.function(pixel_values))


def test_a_model_that_treats_both_sides_alike_agrees_with_itself() -> None:
    assert disagreement(Net(lambda x: x.mean(1)), TILES) == pytest.approx([0] * 5, abs=1e-5)


def test_scale_and_shift_of_a_prediction_do_not_count() -> None:
    def moody(x):  # of the mirrored tile everything is three times as far, and behind something
        turned = (x[:, 0, :, 0] > x[:, 0, :, -1]).float().mean(1).round()[:, None, None]
        return x.mean(1) * (1 + 2 * turned) + 5 * turned

    assert disagreement(Net(moody), TILES) == pytest.approx([0] * 5, abs=1e-4)


def test_a_model_that_takes_the_left_side_for_near_contradicts_itself() -> None:
    ramp = torch.linspace(1, 0, 24)
    values = disagreement(Net(lambda x: x.mean(1) * 0 + ramp), TILES)
    assert min(values) > 1.5  # d and its mirror image are opposites: twice the mean deviation of 1


def test_chance_is_taken_out() -> None:
    rng = np.random.default_rng(1)
    looks = [excess(rng.normal(size=30), rng.normal(size=40)) for _ in range(400)]
    assert np.mean([value > 0.5 for value in looks]) == pytest.approx(0.05, abs=0.03)
    assert excess(rng.normal(2, 1, size=100), rng.normal(size=100)) > 0.8
    assert excess(rng.normal(-2, 1, size=100), rng.normal(size=100)) == 0.5  # less confusion is no alarm
    assert excess([1.0] * 50, [1.0] * 50) == 0.5
    assert excess([], [1.0]) == 0.5
