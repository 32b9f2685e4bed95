"""The Mamba-1 mixer: a short causal convolution and a selective scan, gated (Gu & Dao 2023; as in microsoft/Samba).

x, z = halves of in_proj(u);  x = silu(conv(x))
dt, B, C = parts of x_proj(x);  dt = softplus(dt_proj(dt))
out_proj((scan(dt, x, A, B, C) + D * x) * silu(z))
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.samba.scan import selective_scan, selective_step

State = tuple[Tensor, Tensor]  # the last inputs of the convolution (B, 3, E), and the scan's (B, E, N)


class Mamba(nn.Module):
    """(B, T, D) -> (B, T, D), each token from itself and those before it, through E = 2 D channels of N states."""

    def __init__(self, dim: int, states: int = 16, taps: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, self.rank, self.states = expand * dim, math.ceil(dim / 16), states
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, taps, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        # kept as a vector: rates of decay are no matrix for Muon, and AdamW takes no weight decay from vectors
        self.a_log = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(inner))
        self.skip = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._start_steps()

    @torch.no_grad()
    def _start_steps(self, shortest: float = 1e-3, longest: float = 1e-1) -> None:
        """Steps dt spread evenly over the logarithm between the two, when there is no input."""
        nn.init.uniform_(self.dt_proj.weight, -(self.rank**-0.5), self.rank**-0.5)
        spread = torch.rand_like(self.dt_proj.bias) * math.log(longest / shortest)
        dt = (spread.exp() * shortest).clamp(min=1e-4)
        self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # the inverse of softplus

    def forward(self, u: Tensor) -> Tensor:
        x, z = self.in_proj(u).chunk(2, dim=-1)  # each (B, T, E)
        x = F.silu(self._convolve(F.pad(x, (0, 0, self.conv.kernel_size[0] - 1, 0))))
        y = selective_scan(*self._selected(x)) + self.skip * x
        return self.out_proj(y * F.silu(z))

    def start(self, rows: int, length: int) -> State:
        """The state before the first token; its size does not depend on the length."""
        (taps,), inner = self.conv.kernel_size, len(self.skip)
        return self.skip.new_zeros(rows, taps - 1, inner), self.skip.new_zeros(rows, inner, self.states)

    def step(self, u: Tensor, state: State, position: int) -> tuple[Tensor, State]:
        """The output (B, D) for one more token (B, D), and the next state."""
        before, h = state
        x, z = self.in_proj(u).chunk(2, dim=-1)  # each (B, E)
        seen = torch.cat([before, x[:, None]], dim=1)
        x = F.silu(self._convolve(seen))[:, 0]
        dt, x, a, b, c = self._selected(x)
        h, y = selective_step(h, dt, x, a, b, c)
        return self.out_proj((y + self.skip * x) * F.silu(z)), (seen[:, 1:], h)

    def _convolve(self, x: Tensor) -> Tensor:
        """(B, 3 + T, E) -> (B, T, E), as sums of shifted inputs: depthwise convolutions are slow on processors."""
        (taps,), length = self.conv.kernel_size, x.shape[1] - self.conv.kernel_size[0] + 1
        weight = self.conv.weight[:, 0]  # (E, taps)
        shifted = [x[:, tap : tap + length] * weight[:, tap] for tap in range(taps)]
        assert self.conv.bias is not None
        return torch.stack(shifted).sum(0) + self.conv.bias

    def _selected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What the scan takes, of x (..., E): dt, x, A, B and C."""
        dt, b, c = self.x_proj(x).split([self.rank, self.states, self.states], dim=-1)
        dt = F.softplus(F.linear(dt, self.dt_proj.weight) + self.dt_proj.bias)  # the bias in float32
        return dt, x, -self.a_log.view(-1, self.states).exp(), b, c
