"""Parameters of the Llama-like baseline: Samba's, without a window and states."""

from __future__ import annotations

from dataclasses import dataclass

from models.samba.params import Learned, Sampling, Size

__all__ = ["Params", "Sampling"]


@dataclass(frozen=True, kw_only=True)
class Params(Learned):
    """Section `generator.llama`."""

    net: Size
