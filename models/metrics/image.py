"""How close a reconstruction is to its original: PSNR and SSIM, one number per image."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,), of images (B, 3, H, W) in [0, 1]; infinite where they are equal."""
    return -10 * (images.double() - truth.double()).square().mean((1, 2, 3)).log10()


def ssim(images: Tensor, truth: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity (Wang et al. 2004), (B,), of images (B, 3, H, W) in [0, 1].

    Gaussian window of the paper, constants .01 and .03, mean over the channels and over the places where the
    window fits, as `skimage.metrics.structural_similarity(gaussian_weights=True, use_sample_covariance=False)`
    without its borders.
    """
    x, y = images.double(), truth.double()
    channels = x.shape[1]
    line = torch.exp(-((torch.arange(window, dtype=torch.float64) - window // 2) ** 2) / (2 * sigma**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    kernel = kernel.expand(channels, 1, window, window)

    def blur(a: Tensor) -> Tensor:
        return F.conv2d(a, kernel, groups=channels)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    likeness = likeness / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return likeness.mean((1, 2, 3))


def patch_grid(images: Tensor, truth: Tensor, period: int) -> float:
    """How much stronger the error's steps are across a grid of `period` pixels than between: 1 means no grid shows.

    Images (B, 3, H, W). The mean squared step of (images - truth) from one pixel to the next, over the grid's lines
    in both directions, divided by the same between them.
    """
    error = (images - truth).double()
    on, off = [], []
    for axis in (2, 3):
        steps = error.diff(dim=axis).square().mean([d for d in range(4) if d != axis])  # (size - 1,)
        line = np.arange(1, len(steps) + 1) % period == 0
        on.append(steps[line])
        off.append(steps[~line])
    return float(torch.cat(on).mean() / torch.cat(off).mean())
