"""Transformer parts shared by the tokenizer and the generators.

Attention is written as matmul-softmax-matmul and GELU is the exact (erf) one: on CPUs the fused attention's
bfloat16 backward pass is several times slower, and tanh-GELU slower than erf (`make bench` says by how much here).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """Bidirectional multi-head self-attention, (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # each (B, H, T, d)
        if x.is_cuda:
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        else:
            scores = (q * (d // self.heads) ** -0.5) @ k.transpose(-2, -1)  # (B, H, T, T)
            y = scores.softmax(-1).to(v.dtype) @ v
        return self.out(y.transpose(1, 2).reshape(b, t, d))


class Mlp(nn.Module):
    """Two linear layers with GELU between, (..., D) -> (..., D)."""

    def __init__(self, dim: int, ratio: float = 4.0) -> None:
        super().__init__()
        self.up = nn.Linear(dim, int(dim * ratio))
        self.down = nn.Linear(int(dim * ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(x)))


class Block(nn.Module):
    """Pre-norm transformer block, (B, T, D) -> (B, T, D)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, mlp_ratio)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.mlp(self.norm2(x)))


def init_weights(net: nn.Module, depth: int) -> None:
    """Linear weights with std 1/sqrt(fan in), residual outputs divided by sqrt(2 * depth), biases zero.

    With positions of order 1 (`sincos_2d`) this starts small nets where 0.02-initialised ones spend their
    first hundreds of steps getting to.
    """
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            scale = (2 * depth) ** -0.5 if name.endswith(("attention.out", "mlp.down")) else 1.0
            nn.init.normal_(module.weight, std=scale * module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def sincos_2d(rows: int, columns: int, dim: int) -> Tensor:
    """Fixed sine-cosine positions of a grid, (rows * columns, dim), values in [-1, 1]; `dim` a multiple of 4."""
    if dim % 4:
        raise ValueError(f"dim {dim} is not a multiple of 4")
    frequency = torch.exp(torch.arange(dim // 4) * (-math.log(1e4) / (dim // 4)))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency for axis in (y.float(), x.float())]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], dim=1)
