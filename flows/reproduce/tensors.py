"""How far two files of weights lie apart, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that is not the same in both files."""

    name: str
    shape: tuple[int, ...]
    largest: float  # of the absolute differences
    relative: float  # norm of the difference over norm of the original; inf where they cannot be compared
    share: float  # of the elements that differ
    problem: str = ""  # "only in the original", "only in the new one", "was (4, 8)", "was float32"


def differences(original: Path, made: Path) -> list[TensorDifference]:
    """The tensors that differ, the farthest first; [] if all are equal, bit by bit."""
    from safetensors.torch import load_file

    then, now = load_file(original), load_file(made)
    found = []
    for name in sorted({*then, *now}):
        one, other = then.get(name), now.get(name)
        if one is None:
            found.append(_incomparable(name, now[name].shape, "only in the new one"))
        elif other is None:
            found.append(_incomparable(name, one.shape, "only in the original"))
        elif one.shape != other.shape:
            found.append(_incomparable(name, other.shape, f"was {tuple(one.shape)}"))
        elif one.dtype != other.dtype:
            found.append(_incomparable(name, other.shape, f"was {str(one.dtype).removeprefix('torch.')}"))
        elif (difference := _compare(name, one, other)) is not None:
            found.append(difference)
    return sorted(found, key=lambda one: -one.relative)


def _compare(name: str, one: Tensor, other: Tensor) -> TensorDifference | None:
    """In double precision; a NaN that became a number, or the reverse, is infinitely far."""
    import torch

    if torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)):
        return None
    before, after = one.double(), other.double()
    apart = (after - before).abs()
    apart = torch.where(before.isnan() & after.isnan() | (before == after), torch.zeros_like(apart), apart)
    largest = float(apart.nan_to_num(nan=math.inf).max())
    norm, scale = float(apart.nan_to_num(nan=math.inf).norm()), float(before.nan_to_num().norm())
    relative = 0.0 if norm == 0 else norm / scale if scale > 0 else math.inf
    return TensorDifference(name, tuple(other.shape), largest, relative, float((apart != 0).double().mean()))


def _incomparable(name: str, shape: Sequence[int], problem: str) -> TensorDifference:
    return TensorDifference(name, tuple(shape), math.inf, math.inf, 1.0, problem)
