"""VQGAN without normalisation layers: an image becomes a grid of codes, and the codes become an image again."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.core.params import Length, Share, UserError
from models.core import device
from models.core.learning import Width
from models.core.quantizer import VectorQuantizer
from models.proxy.params import Blocks, Codes, Stem


class VQGAN(nn.Module):
    """Images (B, 3, H, W) in [0, 1] <-> codes (B, H/f, W/f), f = stem * 2^(len(channels) - 1).

    channels: width of each level, finest first; blocks: residual blocks per level; stem: pixels folded into channels
    before the first level, which is where a CPU's time goes. Group normalisation took a third of a step and learned
    four decibels less in the same number of steps than none with Fixup's start (Zhang et al. 2019).
    """

    def __init__(
        self,
        *,
        channels: Annotated[Sequence[Width], Length(1, 8)],
        blocks: Blocks,
        stem: Stem,
        codes: Codes,
        code_dim: Width,
        decay: Share = 0.95,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(channels, blocks, stem, code_dim)
        self.quantizer = VectorQuantizer(codes, code_dim, decay=decay)
        self.decoder = Decoder(channels, blocks, stem, code_dim)
        self.downscale = self.encoder.downscale

    def forward(self, images: Tensor, quantise: bool = True) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> reconstruction, unclamped, and the commitment loss (zero where not quantised)."""
        z = self.encoder(images)
        commitment = z.new_zeros((), dtype=torch.float32)
        if quantise:
            z, _, commitment = self.quantizer(z)
        return self.decoder(z), commitment

    def begin_quantising(self, images: Tensor) -> None:
        """Start the codebook from what the encoder has learned without it: k-means on its vectors."""
        self.quantizer.start(device.in_batches(self, self.encoder, images, 64).to(images.device))

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> codes (B, h, w)."""
        return self.quantizer.assign(self.encoder(images))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) -> images (B, 3, H, W) in [0, 1]."""
        return self.decoder(self.quantizer.lookup(codes)).float().clamp(0, 1)


class Encoder(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> vectors (B, h, w, code_dim)."""

    def __init__(self, channels: Sequence[int], blocks: int, stem: int, code_dim: int) -> None:
        super().__init__()
        self.downscale = stem * 2 ** (len(channels) - 1)
        self.fold = nn.PixelUnshuffle(stem)
        self.stem = Conv(3 * stem**2, channels[0])
        depth = blocks * len(channels)
        self.levels = nn.ModuleList()
        for level, width in enumerate(channels):
            down = [Conv(channels[level - 1], width, stride=2)] if level else []
            self.levels.append(nn.Sequential(*down, *(Residual(width, depth) for _ in range(blocks))))
        self.head = nn.Conv2d(channels[-1], code_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.silu(self.features(images)[-1])).permute(0, 2, 3, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        """What each level sees, finest first: (B, width, H/stem/2^level, W/stem/2^level)."""
        height, width = images.shape[-2:]
        if height % self.downscale or width % self.downscale:
            raise UserError(f"the proxy takes pictures in multiples of {self.downscale} pixels, not {height} x {width}")
        x = self.stem(self.fold(images * 2 - 1))
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found


class Decoder(nn.Module):
    """Vectors (B, h, w, code_dim) -> images (B, 3, H, W), about [0, 1] but unclamped."""

    def __init__(
        self, channels: Annotated[Sequence[Width], Length(1, 8)], blocks: Blocks, stem: Stem, code_dim: Width
    ) -> None:
        super().__init__()
        self.config = {"channels": list(channels), "blocks": blocks, "stem": stem, "code_dim": code_dim}
        self.stem = Conv(code_dim, channels[-1])
        depth = blocks * len(channels)
        layers: list[nn.Module] = []
        for level in range(len(channels) - 1, -1, -1):
            layers += [Residual(channels[level], depth) for _ in range(blocks)]
            if level:
                layers.append(Upsample(channels[level], channels[level - 1]))
        self.levels = nn.Sequential(*layers)
        self.head = Conv(channels[0], 3 * stem**2)
        self.unfold = nn.PixelShuffle(stem)
        self.smooth = Smooth()

    def forward(self, vectors: Tensor) -> Tensor:
        x = self.levels(self.stem(vectors.permute(0, 3, 1, 2)))
        return self.smooth(self.unfold(self.head(F.silu(x)))) * 0.5 + 0.5


class Residual(nn.Module):
    """x + two 3x3 convolutions of it; the last starts at zero and the first is scaled by the depth (Fixup)."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.first, self.last = Conv(width, width), Conv(width, width)
        with torch.no_grad():
            self.first.weight.mul_(depth**-0.5)
            self.last.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(F.silu(self.first(F.silu(x))))


class Upsample(nn.Module):
    """Twice the size: nearest neighbour, then a convolution, which leaves no checkerboard (Odena et al. 2016)."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = Conv(width_in, width_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Smooth(nn.Module):
    """A 3x3 convolution of pixels that starts as a slight blur: pixels unfolded from one place and from two come to
    look alike. Without it a fine grid of `stem` pixels shows in even areas."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = Conv(3, 3)
        line = torch.tensor([1.0, 4.0, 1.0]) / 6
        with torch.no_grad():
            self.conv.weight.copy_(torch.kron(torch.eye(3), torch.outer(line, line).flatten()[None]))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Conv(nn.Module):
    """3x3 convolution whose weight is a matrix (out, in * 9), as Muon wants it."""

    def __init__(self, width_in: int, width_out: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.randn(width_out, width_in * 9) * (width_in * 9) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(width_out))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.view(len(self.weight), -1, 3, 3)
        return F.conv2d(x, kernel, self.bias, self.stride, padding=1)
