"""Tiles of a photograph: square, non-overlapping within a scale, over half-octave scales.

Overlapping random crops would show the student the same pixels again and again (with seven photographs and
500 random crops two in three have a neighbour with an IoU over 0.5), so each scale is cut once, on a centred grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Tile:
    """One tile: `level` halves the photograph `level / 2` times; row and column count in its grid."""

    level: int
    row: int
    column: int

    @property
    def name(self) -> str:
        return f"s{self.level:02d}-r{self.row:03d}-c{self.column:03d}"


def scaled(width: int, height: int, level: int) -> tuple[int, int]:
    """Width and height of the photograph at a level, in pixels."""
    scale = math.sqrt(math.ldexp(1.0, -level))
    return round(width * scale), round(height * scale)


def grids(width: int, height: int, size: int) -> list[tuple[int, int]]:
    """(rows, columns) of the grid at each level, finest first; empty for a photograph smaller than a tile."""
    found: list[tuple[int, int]] = []
    while min(scaled(width, height, len(found))) >= size:
        wide, high = scaled(width, height, len(found))
        found.append((high // size, wide // size))
    return found


def count(width: int, height: int, size: int) -> int:
    """How many tiles a photograph has over all scales."""
    return sum(rows * columns for rows, columns in grids(width, height, size))


def shares(available: list[int], total: int) -> list[int]:
    """How many tiles to take from each photograph so that at most `total` are taken, as evenly as possible.

    Photographs with few tiles give all; the rest is spread over the others (what is left over after an even
    division goes to the earlier ones).
    """
    level = _water_level(available, total)
    taken = [min(n, level) for n in available]
    rest = min(total, sum(available)) - sum(taken)
    for i, n in enumerate(available):
        if rest and n > level:
            taken[i] += 1
            rest -= 1
    return taken


def _water_level(available: list[int], total: int) -> int:
    left = total
    ordered = sorted(available)
    for i, n in enumerate(ordered):
        even = left // (len(ordered) - i)
        if n > even:
            return even
        left -= n
    return max(ordered, default=0)


def choose(width: int, height: int, size: int, wanted: int, seed: int) -> list[Tile]:
    """`wanted` tiles of a photograph in reading order per scale, coarse scales first.

    Coarse tiles show whole scenes and are few, so all of them are taken before any finer one; from the scale at
    which the number is reached an even, seeded choice is made.
    """
    chosen: list[Tile] = []
    levels = grids(width, height, size)
    for level in range(len(levels) - 1, -1, -1):
        rows, columns = levels[level]
        tiles = [Tile(level, r, c) for r in range(rows) for c in range(columns)]
        left = wanted - len(chosen)
        if left < len(tiles):
            picked = np.random.default_rng([seed, level]).choice(len(tiles), size=left, replace=False)
            return chosen + [tiles[i] for i in sorted(picked)]
        chosen += tiles
    return chosen


def cut(photo: Image.Image, tiles: list[Tile], size: int) -> Iterator[tuple[Tile, np.ndarray]]:
    """The chosen tiles with their pixels, uint8 (size, size, 3); each scale is resampled once, with Lanczos.

    `reducing_gap` averages whole blocks of pixels down to three times the wanted size first: on 12 megapixels
    five times as fast, and no difference that can be seen.
    """
    level, picture = -1, photo
    for tile in tiles:
        if tile.level != level:
            level = tile.level
            scale = scaled(*photo.size, level)
            picture = photo.resize(scale, Image.Resampling.LANCZOS, reducing_gap=3) if level else photo
        left = (picture.width % size) // 2 + tile.column * size
        top = (picture.height % size) // 2 + tile.row * size
        yield tile, np.asarray(picture.crop((left, top, left + size, top + size)))
