"""The proxy cut to fewer codes: what its 2-D grid is worth with as many tokens as TiTok has."""

import torch
from torch import Tensor

from models.proxy.vqgan import VQGAN


def decode_cut(proxy: VQGAN, codes: Tensor, keep: int) -> Tensor:
    """Codes (B, h, w), of which `keep` of h * w are used -> images (B, 3, H, W) in [0, 1].

    The places kept are the first of an ordered-dither (Bayer) pattern, which spreads any number evenly: half of them
    are a chequerboard. Each other place gets the mean vector of the kept places nearest to it.
    """
    height, width = codes.shape[1:]
    kept = dither_order(height, width) < keep  # (h, w)
    vectors = proxy.quantizer.lookup(codes).flatten(1, 2)  # (B, N, D)
    filled = torch.einsum("nm,bmd->bnd", nearest_kept(kept).to(vectors.device), vectors)
    return proxy.decoder(filled.unflatten(1, (height, width))).float().clamp(0, 1)


def dither_order(height: int, width: int) -> Tensor:
    """Each place's rank (h, w) in the smallest Bayer matrix that covers the grid, ranks made dense."""
    bayer = torch.zeros(1, 1, dtype=torch.int64)
    while len(bayer) < max(height, width):
        bayer = torch.cat([torch.cat([4 * bayer, 4 * bayer + 2], 1), torch.cat([4 * bayer + 3, 4 * bayer + 1], 1)])
    cut = bayer[:height, :width].flatten()
    return cut.argsort().argsort().view(height, width)


def nearest_kept(kept: Tensor) -> Tensor:
    """bool (h, w) -> weights (N, N): row n averages the kept places that are nearest to place n."""
    places = torch.nonzero(torch.ones_like(kept)).float()  # (N, 2)
    distance = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance.masked_fill(~kept.flatten()[None], torch.inf)
    nearest = (distance <= distance.min(1, keepdim=True).values + 1e-4).float()
    return nearest / nearest.sum(1, keepdim=True)
