"""TiTok: one transformer reads an image into K tokens, another writes proxy codes from them (Yu et al. 2024)."""

from typing import Annotated

import torch
from torch import Tensor, nn

from data.core.params import Range, Share, UserError
from models.core.layers import Block, init_weights, sincos_2d
from models.core.learning import Heads, Layers, Width
from models.core.quantizer import VectorQuantizer
from models.proxy.params import Codes
from models.tokenizer.params import Latents, Patch, Tokens


class TiTok(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> K tokens -> logits over the proxy's codes (B, h * w, proxy_codes).

    Images have the size that it was made for, `image_size`; others are refused.

    Latent tokens are read out in their own order (the published code's `is_legacy=False`; its legacy mode reshapes
    without a transpose, which mixes the tokens). There is no class token: nothing reads it.
    """

    def __init__(
        self,
        *,
        image_size: Annotated[int, Range(1, 8192)],
        patch: Patch,
        width: Width,
        encoder_layers: Layers,
        decoder_layers: Layers,
        heads: Heads,
        latents: Latents,
        token_dim: Width,
        codes: Tokens,
        proxy_grid: Annotated[int, Range(1, 1024)],
        proxy_codes: Codes,
        decay: Share = 0.95,
    ) -> None:
        super().__init__()
        if image_size % patch:
            raise ValueError(f"image_size {image_size} is not a multiple of patch {patch}")
        self.encoder = Encoder(image_size // patch, patch, width, encoder_layers, heads, latents, token_dim)
        self.quantizer = VectorQuantizer(codes, token_dim, unit=True, decay=decay)
        self.decoder = Decoder(proxy_grid, width, decoder_layers, heads, latents, token_dim, proxy_codes)

    def forward(self, images: Tensor, quantise: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Images -> proxy logits (B, N, C), features (B, N, width), commitment loss (zero where not quantised)."""
        z = self.encoder(images)
        commitment = z.new_zeros((), dtype=torch.float32)
        if quantise:
            z, _, commitment = self.quantizer(z)
        else:
            z = self.quantizer.project(z)
        features = self.decoder.features(z)
        return self.decoder.head(features), features, commitment

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> tokens (B, K), int64."""
        return self.quantizer.assign(self.encoder(images))

    def logits(self, tokens: Tensor) -> Tensor:
        """Tokens (B, K) -> logits over the proxy's codes (B, N, C)."""
        return self.decoder(self.quantizer.lookup(tokens))


class Encoder(nn.Module):
    """Images (B, 3, H, W) -> latent vectors (B, K, token_dim): patches and latent tokens attend to each other."""

    def __init__(
        self, grid: int, patch: int, width: int, layers: int, heads: int, latents: int, token_dim: int
    ) -> None:
        super().__init__()
        self.latents, self.size = latents, grid * patch
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.positions = nn.Parameter(sincos_2d(grid, grid, width))  # (N, width)
        # Of the order of the patches' positions: at the usual .02 every latent token starts out the same.
        self.latent_tokens = nn.Parameter(torch.randn(latents, width))
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, token_dim)
        init_weights(self, layers)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-2:] != (self.size, self.size):  # borders would be cut off without a word
            height, width = images.shape[-2:]
            raise UserError(
                f"this tokenizer was made for pictures of {self.size} x {self.size} pixels, not {height} x {width}; "
                "resize or cut them"
            )
        patches = self.patches(images * 2 - 1).flatten(2).transpose(1, 2) + self.positions  # (B, N, width)
        latents = self.latent_tokens.expand(len(images), -1, -1)  # (B, K, width)
        x = self.blocks(self.norm_in(torch.cat([patches, latents], dim=1)))
        return self.head(self.norm_out(x[:, -self.latents :]))


class Decoder(nn.Module):
    """Quantised vectors (B, K, token_dim) -> logits (B, N, C): one mask token per place asks the latents for a code."""

    def __init__(
        self, grid: int, width: int, layers: int, heads: int, latents: int, token_dim: int, proxy_codes: int
    ) -> None:
        super().__init__()
        self.latents = latents
        self.embed = nn.Linear(token_dim, width)
        self.latent_positions = nn.Parameter(torch.randn(latents, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))
        self.positions = nn.Parameter(sincos_2d(grid, grid, width))  # (N, width)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, proxy_codes))
        init_weights(self, layers)

    def forward(self, vectors: Tensor) -> Tensor:
        return self.head(self.features(vectors))

    def features(self, vectors: Tensor) -> Tensor:
        """Vectors (B, K, token_dim) -> what the head reads, (B, N, width)."""
        asked = (self.mask_token + self.positions).expand(len(vectors), -1, -1)  # (B, N, width)
        given = self.embed(vectors) + self.latent_positions  # (B, K, width)
        x = self.blocks(self.norm_in(torch.cat([asked, given], dim=1)))
        return self.norm_out(x[:, : -self.latents])
