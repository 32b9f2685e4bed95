"""Depth losses against their formulas written out with plain loops."""

import numpy as np
import pytest
import torch

from models.depth import losses


def maps(seed, size=9):
    return torch.rand(2, size, size, generator=torch.Generator().manual_seed(seed))


def reference(prediction, truth, ignored, weight, scales=4):
    """Depth Anything's affine-invariant loss and MiDaS' gradient matching, pixel by pixel."""

    def normalised(d):
        median = np.sort(d.ravel())[(d.size - 1) // 2]
        return (d - median) / np.abs(d - median).mean()

    ssi, count, gradients = 0.0, 0, np.zeros((scales, 2))
    for p, t in zip(prediction.numpy().astype(np.float64), truth.numpy().astype(np.float64), strict=True):
        r = normalised(p) - normalised(t)
        limit = np.sort(np.abs(r).ravel())[round((1 - ignored) * r.size) - 1]
        keep = np.abs(r) <= limit
        ssi, count = ssi + np.abs(r)[keep].sum(), count + keep.sum()
        for k in range(scales):
            d = r[:: 2**k, :: 2**k]
            for y in range(d.shape[0]):
                for x in range(d.shape[1]):
                    if x + 1 < d.shape[1]:
                        gradients[k, 0] += abs(d[y, x + 1] - d[y, x])
                    if y + 1 < d.shape[0]:
                        gradients[k, 0] += abs(d[y + 1, x] - d[y, x])
            gradients[k, 1] += d.size
    ssi, gradient = ssi / count, (gradients[:, 0] / gradients[:, 1]).sum()
    return {"ssi": ssi, "gradient": gradient, "loss": ssi + weight * gradient}


@pytest.mark.parametrize("ignored", [0.0, 0.1])
def test_the_loss_is_the_written_out_formula(ignored):
    found = losses.affine_invariant(maps(0), maps(1), gradient_weight=2.0, ignored=ignored)
    expected = reference(maps(0), maps(1), ignored, 2.0)
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, rel=1e-5)


def test_scale_and_shift_of_either_side_change_nothing():
    plain = losses.affine_invariant(maps(0), maps(1))["loss"]
    moved = losses.affine_invariant(5 * maps(0) + 3, 0.5 * maps(1) - 1)["loss"]
    assert float(plain) == pytest.approx(float(moved), rel=1e-4)


def test_a_right_prediction_costs_nothing():
    assert float(losses.affine_invariant(2 * maps(0) + 1, maps(0))["loss"]) == pytest.approx(0, abs=1e-4)


def test_the_largest_tenth_of_each_maps_errors_is_left_out():
    errors = torch.stack([torch.arange(100.0).view(10, 10), 100 * torch.arange(100.0).flip(0).view(10, 10)])
    mask = losses.kept(errors, 0.1)
    assert mask[0].flatten().tolist() == [1] * 90 + [0] * 10
    assert mask[1].flatten().tolist() == [0] * 10 + [1] * 90


def test_a_flat_map_gives_a_finite_loss_and_gradient():
    prediction = torch.full((1, 8, 8), 0.3, requires_grad=True)
    losses.affine_invariant(prediction, maps(1, 8)[:1])["loss"].backward()
    assert torch.isfinite(prediction.grad).all()


def test_a_pixel_that_runs_away_is_pulled_back_although_its_error_is_ignored():
    prediction = maps(0).clone()
    prediction[:, 4, 4] = 50.0
    prediction.requires_grad_()
    losses.affine_invariant(prediction, maps(0), ignored=0.1)["loss"].backward()
    assert (prediction.grad[:, 4, 4] > 0).all()
