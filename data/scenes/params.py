"""Parameters of the scenes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from data.core.params import Range, Seed

CLASSES = 10


@dataclass(frozen=True)
class Scenes:
    """Section `scenes` of params.yaml."""

    seed: Seed
    count: Annotated[int, Range(CLASSES, 10**8, why=": one scene of each class, keys of eight digits")]
    size: Annotated[int, Range(16, 4096)]  # pixels per side
    samples_per_pixel: Annotated[int, Range(1, 65_536)]  # some classes take a fixed multiple of it
    held_out_share: Annotated[float, Range(above=0, below=1)]  # of the scenes, chosen by a hash of their keys
    per_shard: Annotated[int, Range(1, 10**7)]  # scenes in one tar file

    def __post_init__(self) -> None:
        if self.size % 16:
            raise ValueError(f"size must be a multiple of 16 (patches of 8 and a halved grid), not {self.size}")
        held_out = self.count * self.held_out_share
        if not 1 <= held_out <= self.count - 1:
            raise ValueError(
                f"held_out_share {self.held_out_share} of {self.count} scenes leaves nothing to "
                f"{'hold out' if held_out < 1 else 'train on'}; count and held_out_share must leave a scene for both"
            )
