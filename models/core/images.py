"""Pictures as tensors: uint8 (N, 3, H, W) in memory, fp32 in [0, 1] in a network."""

import numpy as np
import torch
from torch import Tensor


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 (N, H, W, 3) -> uint8 (N, 3, H, W)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def to_array(images: Tensor) -> np.ndarray:
    """(N, 3, H, W), uint8 or in [0, 1] -> uint8 (N, H, W, 3)."""
    if images.dtype != torch.uint8:
        images = (images.float().clamp(0, 1) * 255).round().byte()
    return images.permute(0, 2, 3, 1).contiguous().numpy()


def unit(images: Tensor) -> Tensor:
    """uint8 images -> fp32 in [0, 1]."""
    return images.float() / 255


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """(B, ..., W) with those pictures turned left to right that bool (B,) `mirrored` names."""
    return torch.where(mirrored.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)
