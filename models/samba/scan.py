"""The selective scan of Mamba-1 as a chunked parallel one, in plain PyTorch, with its gradient (Gu & Dao 2023).

    h[t] = exp(dt[t] * A) * h[t - 1] + (dt[t] * x[t]) * B[t]        for every channel and each of its N states
    y[t] = sum of h[t] * C[t] over the states

A sequence is cut into chunks of `CHUNK` tokens that advance side by side, as rows of one batch: once from zero, which
gives the state that each chunk adds; then these are carried from chunk to chunk, a step for a chunk; then once more
from the carried states. So time and memory are linear in the length, and no step waits for more than
2 CHUNK + T / CHUNK others. A single chunk needs no first pass: a sequence as short as a picture's takes the recurrence
as it stands.

Between forward and backward pass only the inputs and the states at the chunks' beginnings are kept. All decays are
products of factors below 1: nothing can overflow, however long the sequence.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 64  # tokens; steps of 64 rows of 4,096 states fill a core's second-level cache


def selective_scan(dt: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor, chunk: int = CHUNK) -> Tensor:
    """y (B, T, E) of steps dt > 0 and inputs x (B, T, E), decay rates a < 0 (E, N), and b, c (B, T, N).

    In float32, or in float64 where the inputs are; under autocast too.
    """
    dtype = torch.promote_types(dt.dtype, torch.float32)
    dt, x, a, b, c = (one.to(dtype) for one in (dt, x, a, b, c))
    length = dt.shape[1]
    chunk = min(chunk, length)
    folded = [fold(one, chunk) for one in (dt, dt * x, b, c)]  # padded tokens have dt 0: the state stays
    with torch.autocast(dt.device.type, enabled=False):
        y = _Scan.apply(*folded, a.t().contiguous(), len(dt))
    return unfold(y, len(dt), length)


def selective_step(state: Tensor, dt: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The next state (B, E, N) and y (B, E) of one token: dt, x (B, E), a (E, N), b, c (B, N)."""
    decay = torch.exp(dt[..., None] * a)
    state = decay * state + (dt * x)[..., None] * b[:, None]
    return state, (state * c[:, None]).sum(-1)


def fold(x: Tensor, chunk: int) -> Tensor:
    """(B, T, F) -> (chunk, B * chunks, F): the tokens of all chunks side by side, the last chunk padded with zeros."""
    rows, length, width = x.shape
    padded = torch.nn.functional.pad(x, (0, 0, 0, -length % chunk))
    return padded.view(rows, -1, chunk, width).permute(2, 0, 1, 3).reshape(chunk, -1, width).contiguous()


def unfold(y: Tensor, rows: int, length: int) -> Tensor:
    """The way back, without what was padded."""
    chunk, _, width = y.shape
    return y.view(chunk, rows, -1, width).permute(1, 2, 0, 3).reshape(rows, -1, width)[:, :length]


class _Scan(torch.autograd.Function):
    """Folded dt, dt * x (L, R, E), b, c (L, R, N), a (N, E), number of sequences -> folded y (L, R, E).

    States are (R, N, E): along the channels, which lie together, a processor adds many at once.
    """

    @staticmethod
    def forward(ctx: Any, dt: Tensor, dx: Tensor, b: Tensor, c: Tensor, a: Tensor, sequences: int) -> Tensor:
        first = dt.new_zeros(dt.shape[1], *a.shape)
        if len(first) > sequences:
            end = first
            for step in range(len(dt)):
                end = _advance(end, torch.exp(dt[step, :, None] * a), dx[step], b[step])
            first = _carry(end, torch.exp(dt.sum(0)[:, None] * a), sequences)
        ctx.save_for_backward(dt, dx, b, c, a, first)
        ctx.sequences = sequences
        y, state = torch.empty_like(dx), first
        for step in range(len(dt)):
            state = _advance(state, torch.exp(dt[step, :, None] * a), dx[step], b[step])
            y[step] = (c[step, :, None] @ state)[:, 0]
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        dt, dx, b, c, a, first = ctx.saved_tensors
        with torch.autocast(dt.device.type, enabled=False):
            return _gradients(dt, dx, b, c, a, first, grads[0].contiguous(), ctx.sequences)


def _advance(state: Tensor, decay: Tensor, dx: Tensor, b: Tensor) -> Tensor:
    return (decay * state).addcmul_(dx[:, None], b[:, :, None])


def _carry(end: Tensor, decay: Tensor, sequences: int, reverse: bool = False) -> Tensor:
    """What every chunk (R, N, E) begins with, when `end` is what each makes of nothing and `decay` what it leaves."""
    end, decay = (one.view(sequences, -1, *one.shape[1:]) for one in (end, decay))
    chunks = range(end.shape[1])
    begin, state = torch.empty_like(end), torch.zeros_like(end[:, 0])
    for chunk in reversed(chunks) if reverse else chunks:
        begin[:, chunk] = state
        state = torch.addcmul(end[:, chunk], decay[:, chunk], state)
    return begin.flatten(0, 1)


def _gradients(
    dt: Tensor, dx: Tensor, b: Tensor, c: Tensor, a: Tensor, first: Tensor, dy: Tensor, sequences: int
) -> tuple[Tensor | None, ...]:
    """The same recurrence from the end: what a state is worth, its own y and what the next state makes of it."""
    steps = range(len(dt))
    decays = [torch.exp(dt[step, :, None] * a) for step in steps]
    states = [first]
    for step in steps:
        states.append(_advance(states[-1], decays[step], dx[step], b[step]))
    worth = torch.zeros_like(first)
    if len(first) > sequences:
        for step in reversed(steps):
            worth = worth.addcmul_(dy[step, :, None], c[step, :, :, None]).mul_(decays[step])
        worth = _carry(worth, torch.exp(dt.sum(0)[:, None] * a), sequences, reverse=True)
    d_dt, d_dx, d_b, d_c = (torch.empty_like(one) for one in (dt, dx, b, c))
    d_a = torch.zeros_like(first)
    for step in reversed(steps):
        worth = worth.addcmul_(dy[step, :, None], c[step, :, :, None])
        d_c[step] = (states[step + 1] * dy[step, :, None]).sum(2)
        d_b[step] = (worth * dx[step, :, None]).sum(2)
        d_dx[step] = (b[step, :, None] @ worth)[:, 0]
        worth = worth.mul_(decays[step])
        exponent = worth * states[step]  # gradient of dt * a
        d_dt[step] = (exponent * a).sum(1)
        d_a.addcmul_(exponent, dt[step, :, None])
    return d_dt, d_dx, d_b, d_c, d_a.sum(0), None
