"""Augmentation of pictures with disparities: merge two by depth, mirror, zoom into a window, change the colours."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from models.depth.net import normalise


def augment(
    images: Tensor, disparity: Tensor, random: Generator, *, zoom: float, jitter: float, merged: float, grey: float
) -> tuple[Tensor, Tensor]:
    """uint8 (B, H, W, 3) and (B, H, W) -> normalised pixels (B, 3, H, W) and the disparity that belongs to them.

    `merged` and `grey` are shares of the pictures: merged with another by depth, and without colour. Windows are
    between 1/`zoom` of the sides and the whole picture; half are mirrored. `jitter` is the largest relative change
    of contrast; brightness moves by up to twice and single channels by half of it.
    """
    images, disparity = merge(images, disparity, random, merged)
    pixels = recolour(normalise(images), random, jitter, grey)
    return window(pixels, disparity, random, zoom)


def merge(images: Tensor, disparity: Tensor, random: Generator, share: float) -> tuple[Tensor, Tensor]:
    """A `share` of the pictures gets its neighbour's nearer things put in front, as a depth buffer would.

    Both disparities are near/z; the neighbour's may be mirrored and comes nearer or goes farther by up to 30 %. Known
    things in places and against backgrounds that were never rendered, so that a silhouette and not the remembered
    layout of a class has to tell what is in front.
    """
    count = len(images)
    chosen = torch.rand(count, generator=random) < share
    mirrored = torch.rand(count, generator=random) < 0.5
    distance = 0.7 + 0.6 * torch.rand(count, generator=random)
    other, depth = images.roll(1, 0), disparity.roll(1, 0) * distance[:, None, None]
    other = torch.where(mirrored[:, None, None, None], other.flip(2), other)
    depth = torch.where(mirrored[:, None, None], depth.flip(2), depth)
    front = (depth > disparity) & chosen[:, None, None]  # (B, H, W)
    return torch.where(front[..., None], other, images), torch.where(front, depth, disparity)


def recolour(pixels: Tensor, random: Generator, jitter: float, grey: float) -> Tensor:
    """Normalised pixels (B, 3, H, W) with a `grey` share of the pictures without colour, in another light."""
    count = len(pixels)
    colourless = torch.rand(count, 1, 1, 1, generator=random) < grey
    pixels = torch.where(colourless, pixels.mean(1, keepdim=True), pixels)
    contrast, brightness = (2 * torch.rand(2, count, 1, 1, 1, generator=random) - 1) * jitter
    tint = (2 * torch.rand(count, 3, 1, 1, generator=random) - 1) * jitter
    return pixels * (1 + contrast) + 2 * brightness + 0.5 * tint


def window(pixels: Tensor, disparity: Tensor, random: Generator, zoom: float) -> tuple[Tensor, Tensor]:
    """A random window of each picture (B, 3, H, W) and disparity (B, H, W), at the whole picture's size."""
    count = len(pixels)
    side = zoom ** -torch.rand(count, generator=random)  # as a share of the picture's
    mirrored = torch.where(torch.rand(count, generator=random) < 0.5, -1.0, 1.0)
    place = torch.zeros(count, 2, 3)
    place[:, 0, 0], place[:, 1, 1] = side * mirrored, side
    place[:, :, 2] = (1 - side[:, None]) * (2 * torch.rand(count, 2, generator=random) - 1)
    grid = F.affine_grid(place, [count, 1, *disparity.shape[1:]], align_corners=False)
    pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    # nearest: a mean across a silhouette would be the depth of nothing
    nearest = F.grid_sample(disparity[:, None], grid, mode="nearest", padding_mode="border", align_corners=False)
    return pixels, nearest[:, 0]
