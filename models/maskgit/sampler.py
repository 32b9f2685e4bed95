"""MaskGIT's parallel decoding, as pure functions: a net's logits and a random generator in, tokens out.

    tokens = all masked
    for step in 0 .. steps - 1, r = (step + 1) / steps:
        logits = net with and without the class, combined with the guidance scale of this step
        draw every masked token from its logits; noise of strength temperature * (1 - r)
        mask again the floor(K * acos(r) / (pi / 2)) least certain ones (by logit plus noise)

Chang et al. 2022, with TiTok's arccos schedule and its guidance schedules (Yu et al. 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from models.maskgit.params import Sampling

Predict = Callable[[Tensor, Tensor], Tensor]  # tokens (B, K), labels (B,) -> logits (B, K, codes)


@torch.no_grad()
def sample(
    predict: Predict, labels: Tensor, *, length: int, codes: int, no_class: int, how: Sampling, random: torch.Generator
) -> Tensor:
    """Draw int64 tokens (B, length) in [0, codes) for the labels (B,); `random` lives on the labels' device.

    Token `codes` means masked and label `no_class` means none, as the net was trained.
    """
    tokens = labels.new_full((len(labels), length), codes)
    for step in range(how.steps):
        ratio = (step + 1) / how.steps
        noise = how.temperature * (1 - ratio)
        masked = tokens == codes
        logits = guided(predict, tokens, labels, no_class, guidance_scale(how, step))
        if how.anneal:
            logits = logits / (0.5 + 0.8 * (1 - ratio))
        drawn = (logits + noise * gumbel(logits.shape, random)).argmax(-1)
        tokens = torch.where(masked, drawn, tokens)
        if step + 1 < how.steps:
            certainty = logits.gather(-1, drawn[..., None])[..., 0]
            certainty = certainty + noise * gumbel(certainty.shape, random)
            again = least_certain(certainty.masked_fill(~masked, torch.inf), masked_count(length, masked, ratio))
            tokens = torch.where(again, codes, tokens)
    return tokens


def guided(predict: Predict, tokens: Tensor, labels: Tensor, no_class: int, scale: float) -> Tensor:
    """fp32 logits, without class + scale * (with class - without); one pass of the net where scale is 1."""
    if scale == 1:
        return predict(tokens, labels).float()
    both = predict(torch.cat([tokens, tokens]), torch.cat([labels, torch.full_like(labels, no_class)])).float()
    with_class, without = both.chunk(2)
    return without + scale * (with_class - without)


def guidance_scale(how: Sampling, step: int) -> float:
    """The factor on (with class - without class) at a step; 1 means no guidance.

    TiTok writes constant and linear guidance as cond + s (cond - uncond), which is 1 + s here; linear starts at s = 0
    and lags one step behind. Its power-cosine (power 3) grows from 1 to the scale itself, which has no 1 added.
    """
    if how.decay == "constant":
        return 1 + how.guidance
    if how.decay == "linear":
        return 1 + how.guidance * step / how.steps
    return 1 + (how.guidance - 1) * (1 - math.cos(math.pi * (step / how.steps) ** 3)) / 2


def masked_count(length: int, masked: Tensor, ratio: float) -> Tensor:
    """How many tokens of each row (B,) stay masked after the share `ratio` of the steps.

    floor(length * acos(ratio) / (pi / 2)), but each step draws at least one for good and leaves one to the next.
    """
    wanted = math.floor(length * math.acos(ratio) / (math.pi / 2))
    return (masked.sum(1) - 1).clamp(max=wanted).clamp(min=1)


def least_certain(certainty: Tensor, count: Tensor) -> Tensor:
    """A bool mask (B, K) of exactly the `count` (B,) lowest values of each row; ties go to the earlier position."""
    rank = certainty.argsort(dim=1, stable=True).argsort(dim=1)
    return rank < count[:, None]


def gumbel(shape: torch.Size, random: torch.Generator) -> Tensor:
    """Standard Gumbel noise: argmax(logits + gumbel) draws from softmax(logits)."""
    uniform = torch.rand(shape, generator=random, device=random.device).clamp(min=1e-20)
    return -(-uniform.log()).clamp(min=1e-20).log()
