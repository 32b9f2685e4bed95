"""Parameters of Samba, and what it shares with other nets that draw one token after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from data.core.params import Range
from models.core.learning import Heads, Layers, Training, Width

Dropout = Annotated[float, Range(0, below=1)]
Window = Annotated[int, Range(1, 10**6)]  # tokens that attention sees, its own among them
States = Annotated[int, Range(1, 1024)]  # of each channel
Stream = Annotated[int, Range(1, 10**6)]  # pictures in a row of tokens


@dataclass(frozen=True)
class Size:
    """The size of a decoder; `stream` pictures lie in each row of the tokens that it learns from."""

    dim: Width
    depth: Layers  # of a mixer and a feed-forward each
    heads: Heads
    mlp: Width
    dropout: Dropout
    stream: Stream

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads ({self.heads}), not {self.dim}")
        if self.dim // self.heads % 2:
            raise ValueError(f"dim / heads must be even: RoPE turns channels in pairs, not {self.dim} / {self.heads}")


@dataclass(frozen=True)
class Net(Size):
    """Samba's size."""

    window: Window
    state: States


@dataclass(frozen=True)
class Sampling:
    """How to draw: `temperature` divides the logits; `guidance` pushes them away from those without a class.

    The push grows over a picture's tokens from 0 to `guidance`, as MaskGIT's linear schedule does over its steps.
    """

    guidance: Annotated[float, Range(0, 1000)]
    temperature: Annotated[float, Range(above=0, most=1000)]


@dataclass(frozen=True, kw_only=True)
class Learned(Training):
    """What every decoder learns with; `sampler` is stored with the model as its default way to draw."""

    sampler: Sampling
    weight_decay: Annotated[float, Range(0, 10)]
    label_drop: Annotated[float, Range(0, below=1)]


@dataclass(frozen=True, kw_only=True)
class Params(Learned):
    """Section `generator.samba`."""

    net: Net
