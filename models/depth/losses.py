"""Losses on disparity that is known up to scale and shift.

The scale-and-shift-invariant error is Depth Anything V1's (section 3.1), gradient matching is MiDaS' (eq. 11), both
combined as in Depth Anything V2 (sections 5.2 and 7.1).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.core import ranks

SCALES = 4  # of gradient matching, as MiDaS


def normalise(disparity: Tensor, floor: float = 1e-3) -> Tensor:
    """(d - median) / mean |d - median| of each map (B, H, W); a flat map has its deviation floored."""
    flat = disparity.flatten(1)  # (B, P)
    shifted = flat - flat.median(dim=1, keepdim=True).values
    scale = shifted.abs().mean(dim=1, keepdim=True).clamp(min=floor)
    return (shifted / scale).view_as(disparity)


def kept(errors: Tensor, ignored: float) -> Tensor:
    """1 where an error (B, H, W) is not among its map's `ignored` share of largest ones, else 0."""
    if ignored == 0:
        return torch.ones_like(errors)
    flat = errors.detach().flatten(1)
    limit = flat.kthvalue(max(1, round((1 - ignored) * flat.shape[1])), dim=1).values
    return (errors.detach() <= limit[:, None, None]).to(errors.dtype)


def gradient_matching(difference: Tensor, scales: int = SCALES) -> Tensor:
    """Sum of |gradient| of `difference` (B, H, W) per pixel, taken at strides 1, 2, 4, ...; summed over the scales."""
    total = difference.new_zeros(())
    for k in range(scales):
        step = 2**k
        d = difference[:, ::step, ::step]
        across = (d[:, :, 1:] - d[:, :, :-1]).abs()
        down = (d[:, 1:] - d[:, :-1]).abs()
        total = total + (across.sum() + down.sum()) / d.numel()
    return total


def affine_invariant(
    prediction: Tensor, truth: Tensor, *, gradient_weight: float = 2.0, ignored: float = 0.0
) -> dict[str, Tensor]:
    """Scale-and-shift-invariant error plus `gradient_weight` x gradient matching, on disparities (B, H, W).

    Returns "ssi", "gradient" and their sum "loss". `ignored` drops that share of the largest errors of each map
    from the first part, as for pseudo-labels, whose worst pixels are more often the label's mistake. Gradient matching
    keeps every pixel (as MiDaS): with both parts blind to them, a student's worst pixels ran away to 80 times the
    median, and no scale and shift could align the map any more.
    """
    difference = normalise(prediction) - normalise(truth)
    mask = kept(difference.abs(), ignored)
    ssi = (difference.abs() * mask).sum() / ranks.mean(mask.sum())
    gradient = gradient_matching(difference)
    return {"ssi": ssi, "gradient": gradient, "loss": ssi + gradient_weight * gradient}


def absolute(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of disparities (B, H, W) taken as they are: a plain pull while the net knows nothing."""
    return F.l1_loss(prediction, truth)
