"""Samba: Mamba in even layers, sliding-window attention in odd ones, SwiGLU after each (Ren et al. 2024).

Layers, order, initialisation and tied embedding are the published ones (microsoft/Samba, Samba_421M); tokens are those
of pictures, and a class begins them. As published there is no dropout; here it may be. The codes' embedding starts from
the tokenizer's codebook, as MaskGIT's does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor, nn

from data.core.params import Range
from models.core.learning import Heads, Layers, Width
from models.samba import sampler
from models.samba.attention import WindowAttention
from models.samba.decoder import Decoder
from models.samba.mamba import Mamba
from models.samba.params import Dropout, Sampling, States, Stream, Window

Codes = Annotated[int, Range(2, 2**20)]
Classes = Annotated[int, Range(1, 10**6)]
Length = Annotated[int, Range(1, 2**20)]


class Net(Decoder):
    """See `Decoder`; `window` tokens are seen by attention, `state` numbers kept for each channel of Mamba."""

    def __init__(
        self,
        *,
        codes: Codes,
        classes: Classes,
        length: Length,
        dim: Width,
        depth: Layers,
        heads: Heads,
        mlp: Width,
        window: Window,
        state: States = 16,
        dropout: Dropout = 0.0,
        stream: Stream = 1,
    ) -> None:
        mixers: list[nn.Module] = [
            WindowAttention(dim, heads, window) if layer % 2 else Mamba(dim, state) for layer in range(depth)
        ]
        shape = {"codes": codes, "classes": classes, "length": length, "dim": dim}
        super().__init__(mixers, **shape, mlp=mlp, dropout=dropout, stream=stream)


def batch(
    net: Decoder, tokens: Tensor, labels: Tensor, label_drop: float, random: torch.Generator
) -> dict[str, Tensor]:
    """Tokens (B, n * K) and labels (B,), a share of which becomes "no class": one net learns with and without."""
    dropped = torch.rand(len(labels), generator=random) < label_drop
    return {"tokens": tokens, "labels": torch.where(dropped, net.no_class, labels)}


def step(net: Decoder, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
    """Cross-entropy of every token given those before it; "nll" in nats and "accuracy" in [0, 1] are over all."""
    log_p = net(batch["tokens"], batch["labels"]).float().log_softmax(-1)  # (B, n * K, codes)
    nll = -log_p.gather(-1, batch["tokens"][..., None]).mean()
    right = log_p.detach().argmax(-1) == batch["tokens"]
    return {"loss": nll, "nll": nll.detach(), "accuracy": right.float().mean()}


def sample(
    net: Decoder, predict: Callable[[Tensor, Tensor], Tensor], labels: Tensor, how: Sampling, random: torch.Generator
) -> Tensor:
    """Tokens int64 (B, K) in [0, codes) of the classes `labels` (B,); `predict` sees whole rows and is not asked."""
    return sampler.sample(net, labels, how, random)
