"""Where nets work: on the first GPU that this process may use, else on the CPU. Data sets stay on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn


def best() -> torch.device:
    """The device for training and for evaluation. Not Apple's: it has no float64, and other bytes come out."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def of(net: nn.Module) -> torch.device:
    """Where a net's weights are; the CPU if it has none."""
    return next((x.device for x in chain(net.parameters(), net.buffers())), torch.device("cpu"))


@torch.no_grad()
def in_batches(net: nn.Module, call: Callable[[Tensor], Tensor], rows: Tensor, batch: int) -> Tensor:
    """`call` on `batch` rows (N, ...) at a time, on the net's device; what it gives for all of them, on the CPU."""
    place = of(net)
    return torch.cat([call(part.to(place)).cpu() for part in rows.split(batch)])
