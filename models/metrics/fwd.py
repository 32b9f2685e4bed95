"""FWD: the Fréchet wavelet distance, a distance between sets of pictures that needs no network weights.

Every picture is taken apart by the Haar wavelet packet transform into 4**level packets (frequency bands that keep
their spatial layout); a Gaussian is fitted to each packet's coefficients over the set; the result is the mean over
packets of the Fréchet distance between the Gaussians of both sets. Veeramacheneni et al., "Fréchet Wavelet Distance:
A Domain-Agnostic Metric for Image Generation", ICLR 2025; Haar, level 4 and pictures in [0, 1] as in their code.

Like every Fréchet distance it is biased upwards for few samples: compare only numbers made from equally many, and
give the distance between two real sets of that size beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LEVEL = 4
CHUNK = 256  # pictures transformed at once


@dataclass(frozen=True)
class Statistics:
    """The Gaussians of a set of pictures: float64 `mean` (packets, dims) and `covariance` (packets, dims, dims)."""

    mean: Tensor
    covariance: Tensor


def fwd(a: np.ndarray | Tensor, b: np.ndarray | Tensor, level: int = LEVEL) -> float:
    """Fréchet wavelet distance between two sets of pictures (N, H, W, 3), uint8 or float in [0, 1]; 0 is best."""
    return distance(statistics(a, level), statistics(b, level))


def distance(a: Statistics, b: Statistics) -> float:
    """Mean over packets of the Fréchet distance."""
    return float(frechet_distance(a.mean, a.covariance, b.mean, b.covariance).mean())


def statistics(images: np.ndarray | Tensor, level: int = LEVEL) -> Statistics:
    """Mean and covariance (divided by N - 1) of every packet; at least two pictures."""
    if len(images) < 2:
        raise ValueError(f"a covariance needs at least 2 pictures, got {len(images)}")
    coefficients = features(images, level).to(torch.float64).transpose(0, 1)  # (P, N, D)
    mean = coefficients.mean(dim=1, keepdim=True)
    centred = coefficients - mean
    return Statistics(mean[:, 0], centred.mT @ centred / (len(images) - 1))


def features(images: np.ndarray | Tensor, level: int = LEVEL) -> Tensor:
    """Haar wavelet packet coefficients of pictures (N, H, W, C) as float32 (N, 4**level, H*W*C / 4**level).

    Height and width must be multiples of 2**level. The transform is orthonormal: squared sums are kept.
    """
    height, width = images.shape[1:3]
    block = 2**level
    if height % block or width % block:
        raise ValueError(f"level {level} needs sides that are multiples of {block}, not {height} x {width}")
    # `level` rounds of the Haar filters on both outputs of the round before are the Walsh-Hadamard transform of every
    # block of 2**level pixels: one matrix product per axis
    hadamard = torch.ones(1, 1)
    for _ in range(level):
        hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]) * 2**-0.5, hadamard)
    parts = []
    for start in range(0, len(images), CHUNK):
        part = as_float(images[start : start + CHUNK])
        blocks = part.unflatten(2, (-1, block)).unflatten(1, (-1, block))  # (n, rows, block, columns, block, C)
        packets = torch.einsum("pi,qj,nricjk->npqrck", hadamard, hadamard, blocks)
        parts.append(packets.flatten(3).flatten(1, 2))  # (n, P, D)
    return torch.cat(parts)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^1/2) for means (..., D) and covariances (..., D, D) -> (...).

    The trace of the root comes from the symmetric A^1/2 B A^1/2, which has the same eigenvalues as A B and stays
    exact for singular covariances (fewer pictures than dimensions), where a general matrix root breaks down.
    """
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt().unsqueeze(-2) @ vectors.mT
    shared = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum(-1)
    spread = torch.einsum("...ii->...", cov_a) + torch.einsum("...ii->...", cov_b) - 2 * shared
    return (mean_a - mean_b).square().sum(-1) + spread.clamp(min=0)


def as_float(images: np.ndarray | Tensor) -> Tensor:
    """Pictures as float32 in [0, 1]; uint8 is divided by 255."""
    tensor = torch.as_tensor(images)
    return tensor.to(torch.float32) / 255 if tensor.dtype == torch.uint8 else tensor.to(torch.float32)
