"""The discriminator of the decoder's fine-tuning: a patch critic of few layers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Discriminator(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> scores (B, 1, h, w), high where a patch looks real.

    As TiTok's: a 5x5 convolution, `stages` of blurred halving and doubling of the width, group normalisation, leaky
    ReLU, and scores from at most 16 x 16 places.
    """

    def __init__(self, *, width: int, stages: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 5, 1, 2), nn.LeakyReLU(0.1)]
        for stage in range(stages):
            wide = width * 2**stage
            layers += [
                nn.Conv2d(wide, wide * 2, 3, 1, 1),
                BlurDown(wide * 2),
                nn.GroupNorm(min(32, wide), wide * 2),
                nn.LeakyReLU(0.1),
            ]
        last = width * 2**stages
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Conv2d(last, last, 1), nn.LeakyReLU(0.1), nn.Conv2d(last, 1, 5, 1, 2))

    def forward(self, images: Tensor) -> Tensor:
        x = self.body(images * 2 - 1)
        if x.shape[-1] > 16:
            x = F.adaptive_max_pool2d(x, 16)
        return self.head(x)


class BlurDown(nn.Module):
    """Half the size after a binomial blur, so that what the critic sees does not depend on odd or even pixels."""

    kernel: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        kernel = torch.outer(line, line) / 64
        self.register_buffer("kernel", kernel.expand(width, 1, 4, 4).clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel.to(x.dtype), stride=2, padding=1, groups=len(self.kernel))
