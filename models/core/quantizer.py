"""Vector quantizer whose codebook follows a moving average of its vectors (van den Oord et al. 2017, appendix A)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.core.params import UserError
from models.core import ranks
from models.core.learning import STARTING


class VectorQuantizer(nn.Module):
    """Replaces each vector by the nearest of `codes` learned vectors.

    unit: compare directions only: vectors and codes lie on the unit sphere (TiTok's quantizer).
    decay: of the moving averages of how often and by which vectors a code was chosen.
    dead: a code chosen less often than this share of the mean moves to a vector of the present batch. Few hundred
        steps is all a short run has, so decay is low and revival quick: with .98 and .02 usage fell to a dozen codes.
    The codebook is a buffer, not a parameter: it changes in training mode only, and never through a gradient.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    updates: Tensor

    def __init__(self, codes: int, dim: int, *, unit: bool = False, decay: float = 0.95, dead: float = 0.1) -> None:
        super().__init__()
        self.unit, self.decay, self.dead = unit, decay, dead
        start = torch.randn(codes, dim)
        self.register_buffer("codebook", F.normalize(start, dim=-1) if unit else start)  # (C, D)
        self.register_buffer("counts", torch.ones(codes))  # (C,)
        self.register_buffer("sums", self.codebook.clone())  # (C, D)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """z (..., D) -> straight-through codes' vectors (..., D), indices (...), commitment loss (scalar); in fp32."""
        with torch.autocast(z.device.type, enabled=False):
            z = self.project(z)
            flat = z.detach().flatten(0, -2)  # (N, D)
            index = self._nearest(flat)
            quantised = self.codebook[index].view_as(z)
            commitment = F.mse_loss(z, quantised)
            if self.training:
                self._follow(flat, index)
            return z + (quantised - z).detach(), index.view(z.shape[:-1]), commitment

    def project(self, z: Tensor) -> Tensor:
        """z (..., D) as the quantizer compares it: fp32, and of length one where `unit`."""
        return F.normalize(z.float(), dim=-1) if self.unit else z.float()

    def assign(self, z: Tensor) -> Tensor:
        """z (..., D) -> indices (...) of the nearest codes; the codebook stays as it is, in training mode too."""
        with torch.autocast(z.device.type, enabled=False):
            return self._nearest(self.project(z.detach()).flatten(0, -2)).view(z.shape[:-1])

    def lookup(self, index: Tensor) -> Tensor:
        """Indices (...) -> vectors (..., D)."""
        return self.codebook[index]

    @torch.no_grad()
    def start(self, z: Tensor, rounds: int = 3) -> None:
        """Sets the codebook by k-means on z (..., D), which needs at least as many vectors as there are codes."""
        flat = self.project(z).flatten(0, -2)
        codes = len(self.codebook)
        if len(flat) < codes:
            raise ValueError(f"a k-means start of {codes} codes needs as many vectors, got {len(flat)}")
        self.codebook.copy_(flat[_permutation(len(flat), 0)[:codes]])
        for _ in range(rounds):
            index = self._nearest(flat)
            counts, sums = self._tally(flat, index)
            self.codebook.copy_(torch.where(counts[:, None] > 0, self._mean(sums, counts), self.codebook))
        share = len(flat) / codes
        self.counts.fill_(share)
        self.sums.copy_(self.codebook * share)

    def _nearest(self, flat: Tensor) -> Tensor:
        """Rows of the nearest codes; |z|^2 is the same for all codes and left out."""
        distance = self.codebook.square().sum(1) - 2 * flat @ self.codebook.T  # (N, C)
        return distance.argmin(1)

    def _tally(self, flat: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        counts = torch.bincount(index, minlength=len(self.codebook)).to(flat.dtype)
        return counts, torch.zeros_like(self.codebook).index_add_(0, index, flat)

    def _mean(self, sums: Tensor, counts: Tensor) -> Tensor:
        return self.project(sums / counts.clamp_min(1e-6)[:, None])

    @torch.no_grad()
    def _follow(self, flat: Tensor, index: Tensor) -> None:
        """Moves the codes towards the vectors that chose them, and dead codes to vectors of this batch (all ranks')."""
        counts, sums = (ranks.total(x) for x in self._tally(flat, index))
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        mean = self.counts.mean()
        dead = torch.nonzero(self.counts < self.dead * mean).flatten()
        if len(dead):
            flat = ranks.gather(flat)
            # The order depends on the number of updates alone, so a resumed run draws what the whole run would have.
            order = _permutation(len(flat), int(self.updates))
            revived = flat[order[torch.arange(len(dead)) % len(flat)].to(flat.device)]
            self.counts[dead] = mean
            self.sums[dead] = revived * mean
        self.codebook.copy_(self._mean(self.sums, self.counts))
        self.updates += 1


def starting(images: Tensor, seed: int, codes: int, places: int) -> Tensor:
    """A seeded sample of a training set (N, ...), in its order, to start a codebook from by k-means.

    places: vectors of each; UserError where all together are fewer than the codes, before anything is trained.
    """
    if min(len(images), STARTING) * places < codes:
        raise UserError(
            f"{codes} codes cannot start from {places} vectors in each of {min(len(images), STARTING)} pictures; use "
            "fewer codes or more pictures"
        )
    return images[_permutation(len(images), seed)[:STARTING].sort().values]


def _permutation(n: int, seed: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
