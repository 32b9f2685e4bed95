"""Learning depth from pictures and disparities: what teacher and students share."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Generator, Tensor, nn

from data.core.params import UserError
from models.core import stage
from models.core.learning import ALONE, Accelerate
from models.core.optim import muon_adamw
from models.core.training import Batch, Batches, Fit, Task, fit
from models.depth import losses, net
from models.depth.augment import augment
from models.depth.params import LearnParams, NetParams
from models.metrics import depth as metrics


@dataclass(frozen=True)
class Pairs:
    """Pictures uint8 (N, H, W, 3) with disparities float32 (N, H, W), in [0, 1]."""

    images: np.ndarray
    disparities: np.ndarray


def learn(
    sizes: NetParams,
    p: LearnParams,
    seed: int,
    train: Pairs,
    held_out: Pairs,
    run: stage.Run,
    accelerate: Accelerate = ALONE,
) -> tuple[nn.Module, list[dict]]:
    """Train a net of the given sizes on `train`; returns it with averaged weights, and the curves."""
    for side in train.images.shape[1:3]:
        if side % sizes.patch_size:
            raise UserError(
                f"pictures of {side} pixels are no multiple of net.patch_size ({sizes.patch_size}); choose one"
            )
    torch.manual_seed(seed)
    made = net.build(**asdict(sizes))
    images, disparities = torch.from_numpy(train.images), torch.from_numpy(train.disparities)

    def make(indices: Tensor, random: Generator) -> Batch:
        pixels, truth = augment(
            images[indices], disparities[indices], random, zoom=p.zoom, jitter=p.jitter, merged=p.merged, grey=p.grey
        )
        return {"pixels": pixels, "disparity": truth}

    def step(model: nn.Module, batch: Batch, progress: float) -> dict[str, Tensor]:
        predicted = net.disparity(model, batch["pixels"])
        found = losses.affine_invariant(predicted, batch["disparity"], gradient_weight=p.gradient, ignored=p.ignored)
        fading = p.absolute * max(0.0, 1 - progress / p.absolute_share) if model.training else 0.0
        if fading > 0:
            found["loss"] = found["loss"] + fading * losses.absolute(predicted, batch["disparity"])
        return found

    optimisers = muon_adamw(made, p.muon_lr, p.lr, p.weight_decay, blocks=net.BLOCKS)
    batches = Batches(len(images), p.batch, p.steps, seed, make)
    plan = Fit.of(p, log_every=max(1, min(50, p.steps // 4)), accelerate=accelerate)
    rows = fit(Task(made, optimisers, step, clip=p.clip), batches, plan, run, validation=whole(held_out, p.batch))
    return made, rows


def whole(pairs: Pairs, batch: int) -> list[Batch]:
    """All pairs as they are, in batches."""
    return [
        {
            "pixels": net.normalise(torch.from_numpy(pairs.images[i : i + batch])),
            "disparity": torch.from_numpy(pairs.disparities[i : i + batch]),
        }
        for i in range(0, len(pairs.images), batch)
    ]


def save(model: nn.Module, sizes: NetParams, run: stage.Run) -> None:
    """Write model/ so that `from_pretrained` and the `depth-estimation` pipeline load it."""
    folder = run.save_model(model.state_dict(), net.config_of(model))
    net.save_processor(folder, sizes.image_size, sizes.patch_size)


def mean_scores(predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Every measure, as the mean over pictures (N, H, W)."""
    rows = [dict(metrics.scores(p, t, seed)) for seed, (p, t) in enumerate(zip(predicted, truth, strict=True))]
    return {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
