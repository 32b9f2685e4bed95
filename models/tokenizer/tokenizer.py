"""The finished tokenizer: TiTok and the proxy's decoder in one module that needs nothing else."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data.core import params
from data.core.params import UserError
from models.core import saved
from models.proxy.vqgan import Decoder
from models.tokenizer.losses import soft_codes
from models.tokenizer.titok import TiTok


class Tokenizer(nn.Module):
    """Images (B, 3, H, W) in [0, 1] <-> tokens (B, K): `encode` and `decode`.

    H and W are those it was trained for; UserError for pictures of another size, and for tokens that it does not have.

    titok: keyword arguments of `TiTok`; pixels: those of the proxy's `Decoder`. Pixels come from the expected proxy
    code at each place, not from the likeliest, so that training can reach the transformer behind it.
    """

    codebook: Tensor

    def __init__(self, *, titok: dict[str, Any], pixels: dict[str, Any]) -> None:
        super().__init__()
        self.grid: int = titok["proxy_grid"]
        self.codes: int = titok["codes"]
        self.titok = TiTok(**titok)
        self.pixels = Decoder(**pixels)
        self.register_buffer("codebook", torch.zeros(titok["proxy_codes"], pixels["code_dim"]))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, K) -> images (B, 3, H, W), unclamped and differentiable."""
        vectors = soft_codes(self.titok.logits(tokens), self.codebook)  # (B, h * w, code_dim)
        return self.pixels(vectors.unflatten(1, (self.grid, self.grid))).float()

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> tokens (B, K), int64."""
        return self.titok.encode(images)

    @torch.no_grad()
    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens (B, K) -> images (B, 3, H, W) in [0, 1]."""
        latents = self.titok.encoder.latents
        if tokens.ndim != 2 or tokens.shape[1] != latents:
            raise UserError(f"this tokenizer has {latents} tokens for each picture, not {tuple(tokens.shape[1:])}")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codes:
            raise UserError(f"tokens go from 0 to {self.codes - 1}, not {int(tokens.min())} to {int(tokens.max())}")
        return self(tokens).clamp(0, 1)


def load(folder: Path) -> Tokenizer:
    """The trained tokenizer of `folder`, in evaluation mode; UserError where there is none."""
    config, state = saved.read(folder)
    where = f"{saved.find(folder) / 'config.json'}:"
    parts = params.arguments(Tokenizer, config, where)
    titok = params.arguments(TiTok, parts["titok"], f"{where} titok")
    pixels = params.arguments(Decoder, parts["pixels"], f"{where} pixels")
    net: Tokenizer = saved.restore(lambda: Tokenizer(titok=titok, pixels=pixels), state, folder)
    return net.requires_grad_(False)
