"""Matrix products of torch on the CPU by OpenBLAS instead of MKL, for `portable: true`.

MKL's only mode that Intel's and AMD's processors share knows neither AVX nor fused operations and takes 2.4 times as
long for the products of a transformer block; OpenBLAS' kernels of Haswell run on all of them, as fast as MKL's best
(on an EPYC 9004: 1.6 ms for 1536 x 128 x 384, against 4.2 and 2.0).
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

_registered: list[torch.library.Library] = []  # torch forgets kernels whose library is gone


def by_openblas() -> None:
    """From here on, in this process."""
    if _registered:
        return
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a kernel is replaced is meant
        for name, kernel in {"mm": product, "bmm": product, "addmm": _add, "baddbmm": _add}.items():
            library.impl(name, kernel, "CPU")
    _registered.append(library)


def product(a: Tensor, b: Tensor) -> Tensor:
    """(..., N, K) @ (..., K, M); of bfloat16 (in Muon) reckoned in float32, which NumPy has."""
    if a.dtype in (torch.bfloat16, torch.float16):
        return product(a.float(), b.float()).to(a.dtype)
    return torch.from_numpy(np.matmul(_rows(a), _rows(b)))


def _add(to: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    made = product(a, b)
    made = made if alpha == 1 else made * alpha
    return made + (to if beta == 1 else to * beta) if beta else made


def _rows(x: Tensor) -> np.ndarray:
    """As an array whose rows or columns lie together, as BLAS wants it: others NumPy multiplies by a slow loop."""
    x = x.detach()
    return (x if 1 in x.stride()[-2:] else x.contiguous()).numpy()
