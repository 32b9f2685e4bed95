"""Parameters of the photographs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from data.core.params import Filled, Range, Seed, Share


@dataclass(frozen=True)
class Photos:
    """Section `photos` of params.yaml."""

    source: Annotated[str, Filled()]  # a folder, a list of its files, a YAML list, or a list of arrivals
    size: Annotated[int, Range(16, 4096)]  # side of a tile in pixels
    count: Annotated[int, Range(2, 10**8)]  # at most so many tiles, shared evenly; not of an arrival list
    held_out_share: Share  # share of the photographs (not of the tiles) that is held out
    min_contrast: Annotated[float, Range(0, below=0.5)]  # standard deviation of luma under which a tile is empty sky
    max_bad_share: Share  # share of unusable files above which the stage stops
    max_pixels: Annotated[int, Range(256, 10**10)]  # a file with more is not decoded
    seed: Seed
    per_photo: Annotated[int | None, Range(1, 10**6)] = None  # tiles from each photograph of an arrival list

    def __post_init__(self) -> None:
        if self.max_pixels < self.size**2:
            raise ValueError(f"max_pixels must be at least size x size, {self.size**2}, not {self.max_pixels}")
