"""What MaskGIT learns from: how tokens are masked, and the cross-entropy on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.core import ranks


def mask_tokens(tokens: Tensor, mask_token: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mask a random part of each row of (B, K) tokens; returns the masked tokens and the bool mask (B, K).

    The masked share is acos(u) / (pi / 2) with u uniform in [0, 1), at least one token: the arccos schedule (TiTok).
    """
    rows, length = tokens.shape
    share = torch.acos(torch.rand(rows, generator=generator)) / (math.pi / 2)
    count = (length * share).round().clamp(min=1)
    order = torch.rand(rows, length, generator=generator).argsort(dim=1)  # a random permutation per row
    mask = order < count[:, None]
    return torch.where(mask, mask_token, tokens), mask


def drop_labels(labels: Tensor, no_class: int, share: float, generator: torch.Generator) -> Tensor:
    """Replace `share` of the labels by `no_class`, so that one net learns with and without a class."""
    return torch.where(torch.rand(len(labels), generator=generator) < share, no_class, labels)


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, mask: Tensor, smoothing: float = 0.1, unmasked_weight: float = 0.1
) -> dict[str, Tensor]:
    """Label-smoothed cross-entropy of (B, K, C) logits, unmasked tokens weighing `unmasked_weight` (TiTok: 0.1, 0.1).

    Returns "loss" (nats, smoothed), and over the masked tokens "nll" (nats, not smoothed) and "accuracy" in [0, 1].
    """
    log_p = logits.float().log_softmax(-1)  # (B, K, C)
    nll = -log_p.gather(-1, targets[..., None])[..., 0]
    smoothed = (1 - smoothing) * nll - smoothing * log_p.mean(-1)
    weight = torch.where(mask, 1.0, unmasked_weight)
    right = log_p.detach().argmax(-1) == targets
    return {
        "loss": (smoothed * weight).sum() / ranks.mean(weight.sum()),
        "nll": nll.detach()[mask].mean(),
        "accuracy": right[mask].float().mean(),
    }
