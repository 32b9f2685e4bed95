"""Improved precision and recall of generated pictures, by nearest neighbours (Kynkäänniemi et al. 2019).

A set covers the union of balls around its features, each reaching to that feature's k-th nearest neighbour in the set.
Precision is the share of generated features that the real set covers; recall the share of real ones that the
generated set covers.
"""

from __future__ import annotations

import torch
from torch import Tensor

K = 3  # neighbours, as in the paper


def precision_recall(real: Tensor, generated: Tensor, k: int = K) -> tuple[float, float]:
    """Precision and recall in [0, 1] of features (N, D) and (M, D); both sets need more than k rows."""
    return covered(generated, real, k), covered(real, generated, k)


def covered(points: Tensor, by: Tensor, k: int = K) -> float:
    """Share of `points` (N, D) inside the union of k-NN balls of the set `by` (M, D)."""
    if len(by) <= k:
        raise ValueError(f"{k} nearest neighbours need more than {k} rows, got {len(by)}")
    reach = torch.cdist(by, by).kthvalue(k + 1, dim=1).values  # the nearest of all is the point itself
    return (torch.cdist(points, by) <= reach).any(1).float().mean().item()
