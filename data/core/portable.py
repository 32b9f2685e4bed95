"""`portable: true`: trainings write the same bytes on every x86-64 processor with AVX2, Intel's or AMD's.

Libraries then choose the kernels of AVX2 everywhere. They read these variables while they load, so a stage that was
started without them starts itself again with them, before it does anything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from data.core import params
from data.core.params import UserError

VARIABLES = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "MKL_CBWR": "COMPATIBLE",  # torch's LAPACK; of MKL's modes the only one that AMD's processors share with Intel's
    "OPENBLAS_CORETYPE": "HASWELL",  # NumPy's products, and torch's (`models.core.products`)
    "OPENBLAS_NUM_THREADS": "1",  # it splits sums by the number of cores
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "CUDA_VISIBLE_DEVICES": "",  # no GPU reckons as a CPU does
}
CONTRARY = (  # other words for the same, and what would weaken them
    "DNNL_MAX_CPU_ISA",
    "DNNL_CPU_ISA_HINTS",
    "DNNL_DEFAULT_FPMATH_MODE",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_ENABLE_CPU_FEATURES",
    "ONEDNN_CPU_ISA_HINTS",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "OPENBLAS_L2_SIZE",
)
NEEDED = {"avx2", "fma", "f16c", "bmi2"}  # of the processor, as /proc/cpuinfo names it


def asked(path: str | Path = "params.yaml") -> bool:
    """Whether the parameters ask for it; UserError when `portable` is neither true nor false."""
    wanted = params.read(path).get("portable", False)
    if not isinstance(wanted, bool):
        raise UserError(f"{path}: portable must be true or false, not {wanted!r}")
    return wanted


def active(variables: Mapping[str, str] = os.environ) -> bool:
    """Whether a process with these variables is portable."""
    return all(variables.get(name) == value for name, value in VARIABLES.items()) and not set(CONTRARY) & set(variables)


def surroundings(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables with which the same process is portable."""
    return {name: value for name, value in variables.items() if name not in CONTRARY} | VARIABLES


def enter() -> None:
    """Become a portable process if the parameters ask for it; UserError where the processor lacks what it needs."""
    if not Path("params.yaml").exists() or not asked() or active():
        return
    missing = NEEDED - _features()
    if missing:
        raise UserError(
            f"params.yaml: portable: true needs an x86-64 processor with AVX2, and this one lacks "
            f"{', '.join(sorted(missing))}; run it elsewhere, or set portable to false"
        )
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], surroundings(os.environ))


def _features() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
