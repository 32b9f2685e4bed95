"""What the warm-up and the fine-tuning minimise."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from models.core import ranks


def soft_codes(logits: Tensor, codebook: Tensor) -> Tensor:
    """Logits (..., C) and codebook (C, D) -> the expected code vector (..., D): differentiable, unlike the best one."""
    return logits.float().softmax(-1) @ codebook


def feature_distance(features: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of two images' features at several scales, each scale brought to unit size.

    features, truth: (B, C, h, w) per scale, of a frozen network. Stands in for a perceptual loss with downloaded
    weights: the proxy's encoder was trained on the same pictures.
    """
    size = [ranks.mean(b.float().square().mean()) for b in truth]
    parts = [F.mse_loss(a.float(), b.float()) / one for a, b, one in zip(features, truth, size, strict=True)]
    return torch.stack(parts).mean()


def hinge_critic(real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's hinge loss (Lim and Ye 2017)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def lecam(real: Tensor, fake: Tensor, mean_real: Tensor, mean_fake: Tensor) -> Tensor:
    """LeCam regularisation (Tseng et al. 2021): scores stay near the other side's running mean (scalars)."""
    return F.relu(real - mean_fake).square().mean() + F.relu(mean_real - fake).square().mean()
