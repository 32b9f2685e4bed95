"""The probe: a small classifier of real pictures, trained inside the evaluation to see what generated ones show.

It learns from the real training pictures alone. It sees no colour and no absolute brightness: many a class is given
away by its backdrop's colour, and the question is whether its things can be recognised. Half of the pictures are
blurred first: what comes out of a tokenizer is never quite sharp, and a probe that reads classes from single pixels
would judge the decoder instead of the picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core import device
from models.core.images import flip, unit
from models.core.optim import warmup_cosine


class Probe(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] -> class logits (B, classes); `features` are what the last layer sees."""

    def __init__(self, classes: int, widths: tuple[int, ...] = (32, 64, 96, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width in zip((1, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(4 * widths[-1], classes)

    def features(self, images: Tensor) -> Tensor:
        """(B, 4 * widths[-1]): the last maps averaged over each quarter: scenes differ by where things are."""
        return F.adaptive_avg_pool2d(self.convolutions(grey(images)), 2).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def grey(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> luma (B, 1, H, W) of mean 0 and standard deviation 1 in each picture."""
    luma = (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    centred = luma - luma.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-4).sqrt()


def train(images: Tensor, labels: Tensor, classes: int, steps: int, batch: int, seed: int, lr: float = 3e-3) -> Probe:
    """A probe trained on uint8 pictures (N, 3, H, W) with labels (N,), flipped and blurred at random."""
    torch.manual_seed(seed)
    place = device.best()
    probe = Probe(classes).to(place)
    optimiser = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=0.05)
    random = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * warmup_cosine(step, steps // 10, steps, end=0.01)
        chosen = torch.randint(len(images), (batch,), generator=random)
        pictures = vary(unit(images[chosen]), random)
        F.cross_entropy(probe(pictures.to(place)), labels[chosen].to(place), label_smoothing=0.1).backward()
        optimiser.step()
        optimiser.zero_grad()
    return probe.eval()


def vary(images: Tensor, random: torch.Generator) -> Tensor:
    """Flip half of the pictures (B, 3, H, W) and blur half of them to a half or a quarter of the resolution."""
    images = flip(images, torch.rand(len(images), generator=random) < 0.5)
    draw = torch.rand(len(images), 1, 1, 1, generator=random)
    half, quarter = (F.interpolate(F.avg_pool2d(images, f), scale_factor=float(f), mode="bilinear") for f in (2, 4))
    return torch.where(draw < 0.25, quarter, torch.where(draw < 0.5, half, images))


def look(probe: Probe, images: Tensor, batch: int = 128) -> tuple[Tensor, Tensor]:
    """Class probabilities (N, classes) and features (N, D) of uint8 pictures (N, 3, H, W)."""
    features = device.in_batches(probe, lambda part: probe.features(unit(part)), images, batch)
    return device.in_batches(probe, lambda part: probe.head(part).softmax(-1), features, len(features)), features
