"""MaskGIT: a bidirectional transformer that fills in masked tokens (Chang et al. 2022, Yu et al. 2024).

Departures from TiTok's BERT, each for learning in minutes rather than days: pre-norm blocks; the class is also added to
every token (0.045 nats on held-out scenes after 450 steps); input and output tokens share one embedding, which starts
from the tokenizer's codebook (0.49 nats), so that codes which decode alike are alike from the first step.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from data.core.params import Range
from models.core.layers import Block, init_weights
from models.core.learning import Heads, Layers, Width
from models.maskgit import losses, sampler
from models.maskgit.params import Dropout, Sampling
from models.tokenizer.params import Latents, Tokens


class Net(nn.Module):
    """Tokens (B, K) in [0, codes] and labels (B,) in [0, classes] -> logits (B, K, codes).

    Token `codes` (`mask_token`) stands for a masked one, label `classes` (`no_class`) for no class.
    """

    def __init__(
        self,
        *,
        codes: Tokens,
        classes: Annotated[int, Range(1, 10**6)],
        length: Latents,
        dim: Width,
        depth: Layers,
        heads: Heads,
        dropout: Dropout = 0.0,
    ) -> None:
        super().__init__()
        self.length, self.mask_token, self.no_class = length, codes, classes
        self.token_embed = nn.Embedding(codes + 1, dim)
        self.class_embed = nn.Embedding(classes + 1, dim)
        self.position = nn.Parameter(torch.empty(1 + length, dim))
        self.blocks = nn.ModuleList([Block(dim, heads, dropout=dropout) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, dim)
        self.bias = nn.Parameter(torch.zeros(codes))
        init_weights(self, depth)
        for order_one in (self.token_embed.weight, self.class_embed.weight, self.position):
            nn.init.normal_(order_one)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        label = self.class_embed(labels)[:, None]
        x = torch.cat([label, self.token_embed(tokens) + label], dim=1) + self.position  # (B, 1 + K, D)
        for block in self.blocks:
            x = block(x)
        x = self.head(self.norm(x[:, 1:]))
        # rows of the embedding have length sqrt(D); the same factor the other way keeps first logits of order 1
        return nn.functional.linear(x * x.shape[-1] ** -0.5, self.token_embed.weight[: self.mask_token], self.bias)

    @torch.no_grad()
    def start_from_codebook(self, codebook: Tensor, share: float = 0.9) -> None:
        """Set `share` of the token embedding's variance to a random projection of the codebook (codes, d)."""
        spread = codebook.float() - codebook.float().mean(0)
        spread = spread / spread.square().sum(1).mean().sqrt()
        projected = spread @ torch.randn(spread.shape[1], self.token_embed.embedding_dim)  # order 1
        own = self.token_embed.weight[: self.mask_token]
        own.copy_(share**0.5 * projected + (1 - share) ** 0.5 * own)


def batch(net: Net, tokens: Tensor, labels: Tensor, label_drop: float, random: torch.Generator) -> dict[str, Tensor]:
    """Tokens (B, K) and labels (B,) with masks and dropped labels drawn."""
    masked, mask = losses.mask_tokens(tokens, net.mask_token, random)
    labels = losses.drop_labels(labels, net.no_class, label_drop, random)
    return {"tokens": tokens, "masked": masked, "mask": mask, "labels": labels}


def step(net: Net, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
    """The training and validation step on a batch of {"tokens", "masked", "mask", "labels"}."""
    return losses.masked_cross_entropy(net(batch["masked"], batch["labels"]), batch["tokens"], batch["mask"])


def sample(net: Net, predict: sampler.Predict, labels: Tensor, how: Sampling, random: torch.Generator) -> Tensor:
    """Tokens int64 (B, K) in [0, codes) of the classes `labels` (B,)."""
    shape = {"length": net.length, "codes": net.mask_token, "no_class": net.no_class}
    return sampler.sample(predict, labels, how=how, random=random, **shape)
