"""Parameters of the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from data.params import Range
from models.learning import Quantised, Weight, Width

Codes = Annotated[int, Range(2, 32_768, why=": indices are kept in 16 bits")]


@dataclass(frozen=True, kw_only=True)
class ProxyParams(Quantised):
    """Section `proxy`. Widths finest first.

    Muon trains the convolutions of the levels: after 430 steps it is where AdamW alone is after 1,500.
    """

    channels: tuple[Width, ...]
    blocks: Annotated[int, Range(1, 100)]
    stem: Annotated[int, Range(1, 64)]
    codes: Codes
    code_dim: Width
    l1: Weight

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.channels) <= 8:
            raise ValueError(f"channels must have one width for each of 1 to 8 levels, not {len(self.channels)}")

    @property
    def downscale(self) -> int:
        """Pixels along a side of one place of the grid."""
        return self.stem * 2 ** (len(self.channels) - 1)
