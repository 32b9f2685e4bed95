"""Parameters of a given set of pictures, and what it may be called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from data.core.params import Filled, Range, Seed, Share, UserError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")  # a shell, a path and a stage's name read it


@dataclass(frozen=True)
class Set:
    """Section `images.sets.NAME` of params.yaml."""

    source: Annotated[
        str, Filled()
    ]  # a folder, a tar, a parquet, a CSV or s3://bucket/prefix; relative to the checkout
    size: Annotated[int, Range(16, 4096)]  # pixels per side, whatever the originals have
    crop: Literal["centre", "random"]  # where along the longer side the square is cut
    licence: str  # of pictures that say none themselves
    held_out_share: Annotated[float, Range(above=0, below=1)]  # of the pictures, chosen by a hash of their originals
    per_shard: Annotated[int, Range(1, 10**7)]  # pictures in one tar file
    max_bad_share: Share  # share of unusable pictures above which the stage stops
    max_pixels: Annotated[int, Range(256, 10**10)]  # a picture with more is not decoded
    seed: Seed

    def __post_init__(self) -> None:
        if self.size % 16:
            raise ValueError(f"size must be a multiple of 16 (patches of 8 and a halved grid), not {self.size}")


def named(name: str) -> str:
    """The name of a set, where it is one."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot be the name of a set; choose small letters, digits and hyphens, such as birds-2024"
        )
    return name
