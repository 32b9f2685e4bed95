"""Other x86-64 processors, as far as libraries can be told to take this one for them: by environment variables.

None of them changes anything in a process that has loaded NumPy or torch already.
"""

import os

import pytest

from data.core import portable

PROCESSORS = {  # each of another maker or generation, by the kernels that libraries choose there
    "an old one without AVX2": {
        "OPENBLAS_CORETYPE": "SANDYBRIDGE",
        "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
        "ATEN_CPU_CAPABILITY": "default",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
    },
    "AMD with AVX2": {
        "OPENBLAS_CORETYPE": "ZEN",
        "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "Intel with AVX-512": {
        "OPENBLAS_CORETYPE": "SKYLAKEX",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
    },
}


def needs(processor: str) -> None:
    """Skip where this processor would break off at the other's instructions; under `portable` no kernel has them."""
    if "AVX-512" in processor and "avx512f" not in portable._features():
        pytest.skip("this processor has no AVX-512")


def environment(processor: str) -> dict[str, str]:
    """The variables of a process that shall take the processor for another one."""
    return {**os.environ, **PROCESSORS[processor]}
