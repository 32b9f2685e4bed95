"""Warm up TiTok (stage 1): learn tokens from which a transformer predicts the frozen proxy's codes.

    python -m models.tokenizer.warm_up --scenes artifacts/scenes --proxy artifacts/proxy \\
        --out artifacts/tokenizer-warmup

Writes model/, metrics.json, curves.csv and figures/. On one core of an EPYC 9004 about 170 s; the
cross-entropy over 512 proxy codes falls from 6.2 to about 1.6.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data.core import entry
from data.core.params import UserError
from data.core.samples import Samples
from models.core import device, figures, learning, saved, stage
from models.core.images import flip, to_array, to_tensor, unit
from models.core.optim import muon_adamw
from models.core.quantizer import starting
from models.core.training import Batch, Batches, Fit, Task, fit
from models.metrics import codebook, image
from models.proxy.load import load as load_proxy
from models.proxy.vqgan import VQGAN
from models.tokenizer.losses import soft_codes
from models.tokenizer.params import WarmUpParams
from models.tokenizer.titok import TiTok


class WarmUp(nn.Module):
    """TiTok with the warm-up's pixel read-out beside it, and the proxy's codebook (C, D)."""

    proxy_codebook: Tensor

    def __init__(self, titok: TiTok, width: int, pixels: int, proxy_codebook: Tensor) -> None:
        super().__init__()
        self.titok = titok
        self.pixel_head = nn.Linear(width, pixels)
        self.register_buffer("proxy_codebook", proxy_codebook, persistent=False)

    def forward(self, images: Tensor, quantise: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W) -> logits over the proxy's codes (B, N, C), pixels (B, N, P), commitment loss."""
        logits, features, commitment = self.titok(images, quantise)
        return logits.float(), self.pixel_head(features).float(), commitment

    def begin_quantising(self, images: Tensor) -> None:
        """Start the codebook from what the encoder has learned without it: k-means on its vectors."""
        self.titok.quantizer.start(device.in_batches(self, self.titok.encoder, images, 64).to(images.device))


def main() -> None:
    args = stage.arguments(__doc__, "scenes", "proxy")
    p = learning.load(WarmUpParams, "warmup")
    with stage.open("tokenizer-warmup", {"scenes": args.scenes, "proxy": args.proxy}, args.out, p) as run:
        proxy = load_proxy(args.proxy).to(device.best())
        train = to_tensor(Samples(args.scenes, "train").images())
        held_out = to_tensor(Samples(args.scenes, "val").images())
        run.say(f"encoding {len(train) + len(held_out)} pictures, and their mirror images, with the proxy")
        config = network(p, proxy, train.shape[-1])
        titok, rows = learn(p, config, proxy, train, held_out, run)
        run.save_model(titok.state_dict(), config)
        run.save_curves(rows)
        restored, tokens = reconstruct(titok, proxy, held_out)
        val = {k.removeprefix("val_"): v for k, v in rows[-1].items() if k in ("val_cross_entropy", "val_accuracy")}
        psnr = float(image.psnr(restored, unit(held_out)).mean())
        run.save_metrics({**val, "psnr": psnr, **dict(codebook.usage(tokens.numpy(), p.codes))})
        pairs = torch.stack([unit(held_out[:24]), restored[:24]], 1).flatten(0, 1)
        figures.tile(to_array(pairs), columns=8, scale=3).save(run.figure("reconstructions.png"))


def network(p: WarmUpParams, proxy: VQGAN, image_size: int) -> dict:
    """The arguments of `TiTok`, as config.json keeps them; UserError where the pictures cannot be divided so."""
    for name, pixels in (("warmup.patch", p.patch), ("the proxy's places", proxy.downscale)):
        if image_size % pixels:
            raise UserError(f"pictures of {image_size} pixels are no multiple of {name} ({pixels}); change one")
    return {
        "image_size": image_size,
        "patch": p.patch,
        "width": p.width,
        "encoder_layers": p.encoder_layers,
        "decoder_layers": p.decoder_layers,
        "heads": p.heads,
        "latents": p.latents,
        "token_dim": p.token_dim,
        "codes": p.codes,
        "proxy_grid": image_size // proxy.downscale,
        "proxy_codes": len(proxy.quantizer.codebook),
    }


def learn(
    p: WarmUpParams, config: dict, proxy: VQGAN, train: Tensor, held_out: Tensor, run: stage.Run
) -> tuple[TiTok, list[dict]]:
    """Train on uint8 images (N, 3, H, W); returns the averaged network and the curves."""
    torch.manual_seed(p.seed)
    net = WarmUp(TiTok(**config), p.width, 3 * proxy.downscale**2, proxy.quantizer.codebook)
    codes = torch.stack([proxy_codes(proxy, train), proxy_codes(proxy, train.flip(-1))])  # (2, N, h * w)
    sample = starting(train, p.seed, p.codes, p.latents)
    start = p.quantises_from

    def make(indices: Tensor, random: torch.Generator) -> Batch:
        mirrored = torch.rand(len(indices), generator=random) < 0.5
        return {"images": flip(unit(train[indices]), mirrored), "codes": codes[mirrored.long(), indices]}

    def step(net: Any, batch: Batch, progress: float) -> dict[str, Tensor]:
        now = round(progress * p.steps)
        if net.training and now == start:
            net.begin_quantising(unit(sample).to(device.of(net)))
        logits, read_out, commitment = net(batch["images"], now >= start)
        truth, vectors = batch["codes"].long(), net.proxy_codebook
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), truth.flatten())
        embedding = F.mse_loss(soft_codes(logits, vectors), vectors[truth]) / vectors.var()
        places = F.pixel_unshuffle(batch["images"], proxy.downscale).flatten(2).mT  # (B, h * w, 3 * f * f)
        pixels = F.mse_loss(read_out, places)
        loss = cross_entropy + p.commitment * commitment + p.embedding * embedding + p.pixels * pixels
        accuracy = (logits.argmax(-1) == truth).float().mean()
        terms = {"cross_entropy": cross_entropy, "embedding": embedding, "pixels": pixels, "commitment": commitment}
        return {"loss": loss, **terms, "accuracy": accuracy}

    task = Task(net, muon_adamw(net, p.muon_lr, p.lr), step, p.clip)
    validation = [{"images": unit(part), "codes": proxy_codes(proxy, part)} for part in held_out.split(64)]
    batches = Batches(len(train), p.batch, p.steps, p.seed, make)
    rows = fit(task, batches, Fit.of(p, accelerate=p.accelerate), run, validation)
    return net.titok, rows


def load(folder: Path) -> tuple[dict[str, Tensor], dict]:
    """The state and the configuration of the warmed-up TiTok in `folder`."""
    config, state = saved.read(folder)
    return state, config


def proxy_codes(proxy: VQGAN, images: Tensor, batch: int = 64) -> Tensor:
    """uint8 (N, 3, H, W) -> the frozen proxy's codes, int16 (N, h * w): made once, not at every step."""
    return device.in_batches(proxy, lambda part: proxy.encode(unit(part)).flatten(1).short(), images, batch)


def reconstruct(titok: TiTok, proxy: VQGAN, images: Tensor, batch: int = 64) -> tuple[Tensor, Tensor]:
    """uint8 (N, 3, H, W) -> reconstructions through soft codes (N, 3, H, W) in [0, 1], and tokens (N, K)."""
    titok.eval()
    grid = images.shape[-1] // proxy.downscale

    def decode(tokens: Tensor) -> Tensor:
        vectors = soft_codes(titok.logits(tokens), proxy.quantizer.codebook).unflatten(1, (grid, grid))
        return proxy.decoder(vectors).clamp(0, 1)

    tokens = device.in_batches(titok, lambda part: titok.encode(unit(part)), images, batch)
    return device.in_batches(titok, decode, tokens, batch), tokens


if __name__ == "__main__":
    entry.run(main)
