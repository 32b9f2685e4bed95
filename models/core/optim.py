"""Optimisers and the learning-rate schedule."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import AdamW, Optimizer

from models.core.muon import Muon


def adamw(
    net: nn.Module, lr: float, weight_decay: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99)
) -> list[Optimizer]:
    """AdamW over the trainable parameters; no decay on vectors, embeddings and tokens (as TiTok and MaskGIT)."""
    return [_adamw([(n, p) for n, p in net.named_parameters() if p.requires_grad], lr, weight_decay, betas)]


def muon_adamw(
    net: nn.Module,
    muon_lr: float,
    lr: float,
    weight_decay: float = 1e-4,
    betas: tuple[float, float] = (0.9, 0.99),
    blocks: str | tuple[str, ...] = "blocks.",
) -> list[Optimizer]:
    """Muon on the 2-D weights inside `blocks`, AdamW on all else (Jordan et al. 2024: hidden matrices only).

    `blocks` is the part of a parameter's name (or several) that marks transformer blocks. On small ViTs Muon reaches in
    a quarter of the steps what AdamW reaches.
    """
    named = [(n, p) for n, p in net.named_parameters() if p.requires_grad]
    marks = (blocks,) if isinstance(blocks, str) else blocks
    inside = {n for n, p in named if p.ndim == 2 and any(mark in n for mark in marks)}
    matrices = [p for n, p in named if n in inside]
    rest = [(n, p) for n, p in named if n not in inside]
    if not matrices:
        raise ValueError(f"no 2-D parameter has {' or '.join(marks)} in its name")
    muon = Muon(matrices, lr=muon_lr, weight_decay=weight_decay)
    return [muon, _adamw(rest, lr, weight_decay, betas)]


def warmup_cosine(step: int, warmup: int, steps: int, end: float = 0.1) -> float:
    """Factor on the learning rate at `step` of `steps`: linear warm-up to 1, then cosine down to `end`."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _adamw(named, lr: float, weight_decay: float, betas: tuple[float, float]) -> Optimizer:
    free = ("embed", "token", "position", "codebook")
    decay = [p for n, p in named if p.ndim >= 2 and not any(word in n for word in free)]
    no_decay = [p for n, p in named if p.ndim < 2 or any(word in n for word in free)]
    groups = [{"params": decay, "weight_decay": weight_decay}, {"params": no_decay, "weight_decay": 0.0}]
    return AdamW([g for g in groups if g["params"]], lr=lr, betas=betas, fused=True)
