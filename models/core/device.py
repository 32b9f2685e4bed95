"""Where nets work: on a GPU if this process may use one, else on the CPU. Data sets stay on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import chain

import torch
from torch import Tensor, nn


def best() -> torch.device:
    """The device for training and for evaluation; where several processes train together, each has its own.

    Not Apple's: it has no float64.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def multiplies_bfloat16(place: torch.device) -> bool:
    """Whether a device has products in bfloat16 itself.

    A CPU has them from AVX-512 on; others emulate them: a 3x3 convolution took 70 times as long as in float32, and a
    product of matrices as well (one core of an EPYC 7003).
    """
    if place.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability() == "AVX512"


def precision(wanted: str) -> str:
    """Lightning's name for how a training reckons here: of "auto", what the device does best; the others stay."""
    if wanted != "auto":
        return wanted
    return "bf16-mixed" if multiplies_bfloat16(best()) else "32-true"


def of(net: nn.Module) -> torch.device:
    """Where a net's weights are; the CPU if it has none."""
    return next((x.device for x in chain(net.parameters(), net.buffers())), torch.device("cpu"))


@torch.no_grad()
def in_batches(net: nn.Module, call: Callable[[Tensor], Tensor], rows: Tensor, batch: int) -> Tensor:
    """`call` on `batch` rows (N, ...) at a time, on the net's device; what it gives for all of them, on the CPU."""
    place = of(net)
    return torch.cat([call(part.to(place)).cpu() for part in rows.split(batch)])
