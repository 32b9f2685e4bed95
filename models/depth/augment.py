"""Augmentation of pictures with disparities: mirror, zoom into a random window, change light and colour."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from models.depth.net import normalise


def augment(images: Tensor, disparity: Tensor, random: Generator, zoom: float, jitter: float) -> tuple[Tensor, Tensor]:
    """uint8 (B, H, W, 3) and (B, H, W) -> normalised pixels (B, 3, H, W) and the disparity that belongs to them.

    Each window is between 1/`zoom` of the sides and the whole picture; half are mirrored. `jitter` is the largest
    relative change of contrast; brightness moves by up to twice and single channels by half of it.
    """
    count, height, width, _ = images.shape

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(*shape, generator=random) - 1

    pixels = normalise(images)
    pixels = pixels * (1 + jitter * uniform(count, 1, 1, 1))
    pixels = pixels + 2 * jitter * uniform(count, 1, 1, 1) + 0.5 * jitter * uniform(count, 3, 1, 1)

    side = zoom ** -torch.rand(count, generator=random)  # of the window, as a share of the picture's
    mirrored = torch.where(torch.rand(count, generator=random) < 0.5, -1.0, 1.0)
    window = torch.zeros(count, 2, 3)
    window[:, 0, 0], window[:, 1, 1] = side * mirrored, side
    window[:, 0, 2], window[:, 1, 2] = (1 - side) * uniform(count), (1 - side) * uniform(count)
    grid = F.affine_grid(window, [count, 1, height, width], align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    # nearest: a mean across a silhouette would be the depth of nothing
    nearest = F.grid_sample(disparity[:, None], grid, mode="nearest", padding_mode="border", align_corners=False)
    return pixels, nearest[:, 0]
