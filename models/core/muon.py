"""Muon: momentum, made orthogonal, as the update of a matrix (Jordan et al. 2024).

The rule is that of `torch.optim.Muon` with `adjust_lr_fn="original"`. That one orthogonalises matrix by matrix, and in
bfloat16 on processors that only emulate it, which takes 70 times as long as float32 (EPYC 7003). Here matrices of one
shape go together, in the number format that the device multiplies fastest.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.core import device

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of a quintic that takes singular values in (0, 1] to about 1 in STEPS steps
STEPS = 5
EPS = 1e-7


class Muon(Optimizer):
    """For matrices alone; `weight_decay` is decoupled, `lr` holds for square and wide ones (see `scale`)."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for group in self.param_groups:
            if wrong := [tuple(p.shape) for p in group["params"] if p.ndim != 2]:
                raise ValueError(f"Muon trains matrices, not a parameter of shape {wrong[0]}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of all matrices that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            matrices = [p for p in group["params"] if p.grad is not None]
            for p, update in zip(matrices, orthogonal([self._momentum(p, group) for p in matrices]), strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * scale(p))
        return loss

    def _momentum(self, p: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """Nesterov's: the gradient, drawn towards the mean of those before it."""
        assert p.grad is not None
        mean = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p.grad))
        mean.lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(mean, group["momentum"])


def scale(matrix: Tensor) -> float:
    """The factor on the rate of a matrix (out, in): a tall one's update has to be longer."""
    return math.sqrt(max(1.0, matrix.shape[0] / matrix.shape[1]))


def orthogonal(updates: list[Tensor]) -> list[Tensor]:
    """The nearest matrices, roughly, whose singular values are all 1: between .7 and 1.2.

    An update that is shared out over several processes (`models.core.sharding`) is gathered, and shared out again.
    """
    made, alike = list(updates), defaultdict[tuple[int, int], list[int]](list)
    whole = [update.full_tensor() if hasattr(update, "full_tensor") else update for update in updates]
    for index, update in enumerate(whole):
        alike[min(update.shape), max(update.shape)].append(index)
    for indices in alike.values():
        wide = torch.stack([whole[i].T if _tall(whole[i]) else whole[i] for i in indices])
        for i, one in zip(indices, newton_schulz(wide), strict=True):
            made[i] = _shared(one.T if _tall(whole[i]) else one, updates[i])
    return made


def newton_schulz(x: Tensor) -> Tensor:
    """Wide matrices (N, rows, columns) with their singular values brought to about 1, by a polynomial of each."""
    a, b, c = COEFFICIENTS
    x = x.bfloat16() if device.multiplies_bfloat16(x.device) else x.float()
    x = x / x.flatten(1).norm(dim=1).clamp(min=EPS)[:, None, None]
    for _ in range(STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _tall(matrix: Tensor) -> bool:
    return matrix.shape[0] > matrix.shape[1]


def _shared(made: Tensor, update: Any) -> Tensor:
    """As the update that it was made from is shared out; all ranks have the whole of it."""
    if not hasattr(update, "full_tensor"):
        return made
    from torch.distributed.tensor import distribute_tensor  # not before: only sharded training needs it

    return distribute_tensor(made, update.device_mesh, update.placements, src_data_rank=None)
