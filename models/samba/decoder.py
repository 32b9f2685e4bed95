"""A causal decoder over the tokens of pictures: blocks of a mixer and SwiGLU, pre-norm, without biases, embedding tied.

A sequence begins with its class as a token, and so does each further picture of a stream: class, K tokens, class, K
tokens, ... The mixers alone know of order; each offers

    forward(x (B, T, D))            -> (B, T, D), all tokens at once
    start(rows, length)             -> the state before the first token
    step(x (B, D), state, position) -> (B, D) for one more token, and the next state
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.core.params import UserError

States = list[Any]  # of the blocks' mixers


class SwiGLU(nn.Module):
    """(..., D) -> (..., D) (Shazeer 2020)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Block(nn.Module):
    """x + mixer(norm(x)), and the same with SwiGLU; the residual stays in float32 under autocast."""

    def __init__(self, mixer: nn.Module, dim: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(dim, eps=1e-5)
        self.mixer: Any = mixer  # what it offers: above
        self.norm2, self.mlp = nn.RMSNorm(dim, eps=1e-5), SwiGLU(dim, mlp)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.mixer(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))

    def step(self, x: Tensor, state: Any, position: int) -> tuple[Tensor, Any]:
        y, state = self.mixer.step(self.norm1(x), state, position)
        x = x + y
        return x + self.mlp(self.norm2(x)), state


class Decoder(nn.Module):
    """Tokens (B, n * K) of n pictures in a row and labels (B,) in [0, classes] -> logits (B, n * K, codes).

    Each token's logits follow from the class and the tokens before it. Label `classes` (`no_class`) stands for none.
    `length` tokens of `stream` pictures are what it learns from; any whole number of pictures can be looked at.
    """

    def __init__(
        self, mixers: Sequence[nn.Module], *, codes: int, classes: int, length: int, dim: int, mlp: int, dropout: float,
        stream: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if length % stream:
            raise UserError(f"net.stream is {stream}, but rows of {length} tokens are not as many pictures; make it so")
        self.codes, self.no_class, self.picture = codes, classes, length // stream
        self.embed = nn.Embedding(codes + classes + 1, dim)  # codes, then classes, then none
        self.blocks: Any = nn.ModuleList([Block(mixer, dim, mlp, dropout) for mixer in mixers])
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """As published: linear layers as torch starts them, those that end a residual divided by sqrt(2 layers)."""
        nn.init.normal_(self.embed.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.endswith(("out_proj.weight", "down.weight")):
                weight.div_((2 * len(self.blocks)) ** 0.5)

    @torch.no_grad()
    def start_from_codebook(self, codebook: Tensor, share: float = 0.9) -> None:
        """Set `share` of the variance of the codes' embedding to a random projection of the codebook (codes, d)."""
        own = self.embed.weight[: self.codes]
        spread = codebook.float() - codebook.float().mean(0)
        spread = spread / spread.square().sum(1).mean().sqrt()
        projected = 0.02 * spread @ torch.randn(spread.shape[1], own.shape[1])
        own.copy_(share**0.5 * projected + (1 - share) ** 0.5 * own)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        pictures = tokens.unflatten(1, (-1, self.picture))  # (B, n, K)
        begin = (self.codes + labels)[:, None, None].expand(-1, pictures.shape[1], 1)
        x = self.embed(torch.cat([begin, pictures], dim=2).flatten(1)[:, :-1])  # nothing follows the last token
        for block in self.blocks:
            x = block(x)
        x = F.pad(x, (0, 0, 0, 1)).unflatten(1, (-1, 1 + self.picture))[:, :, :-1]  # without what a next class follows
        return self._logits(x.flatten(1, 2))

    def start(self, rows: int, length: int) -> States:
        """The states before the first of `length` tokens, classes counted."""
        return [block.mixer.start(rows, length) for block in self.blocks]

    def step(self, given: Tensor, states: States, position: int) -> tuple[Tensor, States]:
        """Logits (B, codes) of what follows the token or class (a row of `embed`) given (B,) at `position`."""
        x, after = self.embed(given), []
        for block, state in zip(self.blocks, states, strict=True):
            x, state = block.step(x, state, position)
            after.append(state)
        return self._logits(x), after

    def _logits(self, x: Tensor) -> Tensor:
        return F.linear(self.norm(x), self.embed.weight[: self.codes])
