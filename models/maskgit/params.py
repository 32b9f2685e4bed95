"""Parameters of MaskGIT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from data.core.params import Range
from models.core.learning import Heads, Layers, Training, Width

Dropout = Annotated[float, Range(0, below=1)]


@dataclass(frozen=True)
class Net:
    """The transformer's size."""

    dim: Width
    depth: Layers
    heads: Heads
    dropout: Dropout

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads ({self.heads}), not {self.dim}")


@dataclass(frozen=True)
class Sampling:
    """How to draw: `steps`, `guidance` scale with its `decay` schedule, Gumbel noise `temperature`.

    `anneal` divides the logits by 0.5 + 0.8 (1 - r), so that later tokens are drawn more greedily.
    Published for TiTok L-32: 8, 4.5, linear, 9.5, on; for S-128: 64, 6.9, power-cosine, 2.8, on.
    """

    steps: Annotated[int, Range(1, 10_000)]
    guidance: Annotated[float, Range(0, 1000)]
    decay: Literal["constant", "linear", "power-cosine"]
    temperature: Annotated[float, Range(0, 1000)]
    anneal: bool = True


@dataclass(frozen=True, kw_only=True)
class Params(Training):
    """Section `generator.maskgit`; `sampler` is stored with the model as its default way to draw."""

    net: Net
    sampler: Sampling
    weight_decay: Annotated[float, Range(0, 10)]
    label_drop: Annotated[float, Range(0, below=1)]
