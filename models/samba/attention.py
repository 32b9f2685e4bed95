"""Causal attention within a sliding window, with rotary positions; the same on every device and at every precision.

Queries are taken in blocks as long as the window: a block's keys are its own and those of the block before, so that
time and memory are linear in the length. Drawing keeps a ring of as many keys and values as the window has. Without a
window everything before a token is seen, at a cost that grows with the length.

Positions enter through RoPE alone (Su et al. 2021: base 10,000, first half of a head's channels against the second):
scores depend on distances, so that a window sees nothing new in sequences longer than those of the training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

State = tuple[Tensor, Tensor]  # keys and values (B, H, window, d); token t in place t modulo the window


class WindowAttention(nn.Module):
    """(B, T, D) -> (B, T, D), each token from the last `window` ones, itself among them; None: from all before."""

    def __init__(self, dim: int, heads: int, window: int | None) -> None:
        super().__init__()
        if dim % heads or dim // heads % 2:
            raise ValueError(f"dim {dim} is not an even multiple of heads {heads}")
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = attend(*self._projected(x, 0), self.window or x.shape[1])  # (B, H, T, d)
        return self.out_proj(y.transpose(1, 2).flatten(2))

    def start(self, rows: int, length: int) -> State:
        """Room for the keys and values of a sequence of `length` tokens."""
        room = min(self.window or length, length)
        weight = self.qkv.weight
        shape = (rows, self.heads, room, weight.shape[1] // self.heads)
        return weight.new_zeros(shape), weight.new_zeros(shape)

    def step(self, x: Tensor, state: State, position: int) -> tuple[Tensor, State]:
        """The output (B, D) for the token (B, D) at `position`; the state is changed in place: it may be long."""
        keys, values = state
        q, k, v = self._projected(x[:, None], position)  # (B, H, 1, d)
        place, seen = position % keys.shape[2], min(position + 1, keys.shape[2])
        keys[:, :, place], values[:, :, place] = k[:, :, 0], v[:, :, 0]
        scores = scaled(q) @ keys[:, :, :seen].to(q.dtype).mT
        y = scores.softmax(-1) @ values[:, :, :seen].to(scores.dtype)
        return self.out_proj(y.flatten(1)), state

    def _projected(self, x: Tensor, position: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, H, T, d) of tokens (B, T, D), the first of which is at `position`."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        angles = rotations(position, x.shape[1], q.shape[-1], x.device)
        return rotate(q, angles), rotate(k, angles), v


def attend(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """(B, H, T, d) of queries, keys and values -> (B, H, T, d)."""
    length = q.shape[2]
    block = min(window, length)
    q, k, v = (F.pad(one, (0, 0, 0, -length % block)).unflatten(2, (-1, block)) for one in (q, k, v))
    if q.shape[2] > 1:
        k, v = with_block_before(k), with_block_before(v)
    scores = scaled(q) @ k.mT  # (B, H, blocks, block, block or 2 blocks)
    unseen = ~visible(q.shape[2], block, k.shape[3], window, q.device)
    weights = scores.masked_fill(unseen, -torch.inf).softmax(-1).to(v.dtype)
    return (weights @ v).flatten(2, 3)[:, :, :length]


def scaled(q: Tensor) -> Tensor:
    return q * q.shape[-1] ** -0.5


def with_block_before(x: Tensor) -> Tensor:
    """(B, H, blocks, W, d) -> (B, H, blocks, 2 W, d): zeros before the first."""
    return torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], dim=3)


def visible(blocks: int, queries: int, keys: int, window: int, place: torch.device) -> Tensor:
    """bool (blocks, queries, keys): which keys a block's queries see; the last key is beside the last query."""
    key = torch.arange(keys, device=place) - (keys - queries)  # below 0: of the block before
    distance = torch.arange(queries, device=place)[:, None] - key
    there = (key >= 0) | (torch.arange(blocks, device=place)[:, None] > 0)  # (blocks, keys)
    return ((distance >= 0) & (distance < window)) & there[:, None]


def rotations(first: int, count: int, width: int, place: torch.device, base: float = 1e4) -> tuple[Tensor, Tensor]:
    """Cosines and sines (count, width / 2) in float32 of the angles at positions from `first` on, reckoned in float64:
    at position 16,000 an angle in float32 is off by a thousandth."""
    frequency = base ** -(torch.arange(0, width, 2, dtype=torch.float64, device=place) / width)
    angles = torch.outer(torch.arange(first, first + count, dtype=torch.float64, device=place), frequency)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn channel i of (..., T, d) with channel i + d / 2, in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    cos, sin = (one.to(dtype) for one in angles)
    one, other = x.to(dtype).chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)
