"""Parameters of the proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from data.core.params import Length, Range
from models.core.learning import Quantised, Weight, Width

Blocks = Annotated[int, Range(1, 100)]
Stem = Annotated[int, Range(1, 64)]
Codes = Annotated[int, Range(2, 32_768, why=": indices are kept in 16 bits")]


@dataclass(frozen=True, kw_only=True)
class ProxyParams(Quantised):
    """Section `proxy`. Widths finest first.

    Muon trains the convolutions of the levels: after 430 steps it is where AdamW alone is after 1,500.
    """

    channels: Annotated[tuple[Width, ...], Length(1, 8)]
    blocks: Blocks
    stem: Stem
    codes: Codes
    code_dim: Width
    l1: Weight

    @property
    def downscale(self) -> int:
        """Pixels along a side of one place of the grid."""
        return self.stem * 2 ** (len(self.channels) - 1)
