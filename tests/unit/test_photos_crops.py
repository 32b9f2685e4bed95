"""Tiling: square tiles that do not overlap within a scale, shared evenly among photographs."""

import numpy as np
import pytest
from PIL import Image

from data.photos import crops


def test_scales_are_half_octaves_down_to_one_tile():
    assert crops.grids(512, 512, 64) == [(8, 8), (5, 5), (4, 4), (2, 2), (2, 2), (1, 1), (1, 1)]
    assert crops.grids(63, 200, 64) == []
    assert crops.count(512, 512, 64) == sum(rows * columns for rows, columns in crops.grids(512, 512, 64))


@pytest.mark.parametrize(
    ("available", "total", "expected"),
    [
        ([10, 10], 30, [10, 10]),
        ([10, 10], 10, [5, 5]),
        ([2, 10, 10], 12, [2, 5, 5]),
        ([10, 10, 10], 11, [4, 4, 3]),
        ([5, 5, 5], 2, [1, 1, 0]),
        ([], 5, []),
    ],
)
def test_photographs_share_the_tiles_evenly(available, total, expected):
    assert crops.shares(available, total) == expected


def test_coarse_scales_come_first_and_the_rest_is_drawn_by_the_seed():
    chosen = crops.choose(256, 256, 64, 15, seed=3)
    assert [t.level for t in chosen] == sorted((t.level for t in chosen), reverse=True)
    assert chosen == crops.choose(256, 256, 64, 15, seed=3)
    assert chosen != crops.choose(256, 256, 64, 15, seed=4)
    assert len(set(chosen)) == 15
    assert crops.choose(256, 256, 64, 10_000, seed=3) == crops.choose(256, 256, 64, crops.count(256, 256, 64), seed=0)


def test_tiles_of_the_full_scale_are_the_photographs_own_pixels():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 70, 3), dtype=np.uint8)
    tiles = [crops.Tile(0, row, column) for row in range(2) for column in range(4)]
    found = dict(crops.cut(Image.fromarray(pixels), tiles, 16))
    assert np.array_equal(found[crops.Tile(0, 0, 0)], pixels[4:20, 3:19])  # the grid is centred
    assert np.array_equal(found[crops.Tile(0, 1, 3)], pixels[20:36, 51:67])
