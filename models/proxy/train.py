"""Train the proxy VQGAN on the scenes' pictures: its codes are what the tokenizer's warm-up learns to predict.

    python -m models.proxy.train --scenes artifacts/scenes --out artifacts/proxy

Writes model/, metrics.json, curves.csv and figures/. On one core of an EPYC 9004 about 90 s for some 25 dB on
held-out scenes, with nearly all codes in use.
"""

from typing import Any

import torch
from torch import Tensor

from data.core import entry
from data.core.samples import Samples
from models.core import device, figures, learning, stage
from models.core.images import flip, to_array, to_tensor, unit
from models.core.optim import muon_adamw
from models.core.quantizer import starting
from models.core.training import Batch, Batches, Fit, Task, fit
from models.metrics import codebook, image
from models.proxy.params import ProxyParams
from models.proxy.vqgan import VQGAN


def main() -> None:
    args = stage.arguments(__doc__, "scenes")
    p = learning.load(ProxyParams, "proxy")
    with stage.open("proxy", {"scenes": args.scenes}, args.out, p) as run:
        train = to_tensor(Samples(args.scenes, "train").images())
        held_out = to_tensor(Samples(args.scenes, "val").images())
        config = network(p)
        net, rows = learn(p, config, train, held_out, run)
        run.save_model(net.state_dict(), config)
        run.save_curves(rows)
        restored, codes = reconstruct(net, held_out)
        run.save_metrics(
            {
                "psnr": float(image.psnr(restored, unit(held_out)).mean()),
                "patch_grid": image.patch_grid(restored, unit(held_out), net.downscale),
                **dict(codebook.usage(codes.numpy(), p.codes)),
            }
        )
        pairs = torch.stack([unit(held_out[:24]), restored[:24]], 1).flatten(0, 1)
        figures.tile(to_array(pairs), columns=8, scale=3).save(run.figure("reconstructions.png"))


def network(p: ProxyParams) -> dict:
    """The arguments of `VQGAN`, as config.json keeps them."""
    return {
        "channels": list(p.channels),
        "blocks": p.blocks,
        "stem": p.stem,
        "codes": p.codes,
        "code_dim": p.code_dim,
    }


def learn(p: ProxyParams, config: dict, train: Tensor, held_out: Tensor, run: stage.Run) -> tuple[VQGAN, list[dict]]:
    """Train on uint8 images (N, 3, H, W); returns the averaged network and the curves."""
    torch.manual_seed(p.seed)
    net = VQGAN(**config)
    sample = starting(train, p.seed, p.codes, (train.shape[-1] // net.downscale) ** 2)
    start = p.quantises_from

    def make(indices: Tensor, random: torch.Generator) -> Batch:
        return {"images": flip(unit(train[indices]), torch.rand(len(indices), generator=random) < 0.5)}

    def step(net: Any, batch: Batch, progress: float) -> dict[str, Tensor]:
        quantise = round(progress * p.steps) >= start
        if net.training and round(progress * p.steps) == start:
            net.begin_quantising(unit(sample).to(device.of(net)))
        restored, commitment = net(batch["images"], quantise)
        error = restored.float() - batch["images"]
        mse = error.square().mean()
        loss = mse + p.l1 * error.abs().mean() + p.commitment * commitment
        return {"loss": loss, "mse": mse, "commitment": commitment}

    task = Task(net, muon_adamw(net, p.muon_lr, p.lr, blocks="levels."), step, p.clip)
    batches = Batches(len(train), p.batch, p.steps, p.seed, make)
    validation = [{"images": unit(part)} for part in held_out.split(64)]
    return net, fit(task, batches, Fit.of(p, accelerate=p.accelerate), run, validation)


def reconstruct(net: VQGAN, images: Tensor, batch: int = 64) -> tuple[Tensor, Tensor]:
    """uint8 (N, 3, H, W) -> reconstructions (N, 3, H, W) in [0, 1] and codes (N, h, w), in fp32."""
    net.eval()
    codes = device.in_batches(net, lambda part: net.encode(unit(part)), images, batch)
    return device.in_batches(net, net.decode, codes, batch), codes


if __name__ == "__main__":
    entry.run(main)
