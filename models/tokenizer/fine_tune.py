"""Fine-tune TiTok's decoder to pixels (stage 2): encoder and tokens stay, both decoders learn.

    python -m models.tokenizer.fine_tune --scenes artifacts/scenes --proxy artifacts/proxy \\
        --warmup artifacts/tokenizer-warmup --out artifacts/tokenizer

Writes model/ (all that encoding and decoding need), metrics.json, curves.csv and figures/. On one core of an
EPYC 9004 about 75 s for some 24 dB.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from data.core import entry
from data.core.samples import Samples
from models.core import device, figures, learning, ranks, stage
from models.core.images import flip, to_array, to_tensor, unit
from models.core.optim import muon_adamw
from models.core.training import Batch, Batches, Fit, Task, fit
from models.metrics import codebook, image
from models.proxy.load import load as load_proxy
from models.proxy.vqgan import VQGAN
from models.tokenizer.discriminator import Discriminator
from models.tokenizer.encode import decode, encode
from models.tokenizer.losses import feature_distance, hinge_critic, lecam
from models.tokenizer.params import FineTuneParams
from models.tokenizer.tokenizer import Tokenizer
from models.tokenizer.warm_up import load as load_warm_up

BATCH = 64  # pictures at once where nothing is learned


def main() -> None:
    args = stage.arguments(__doc__, "scenes", "proxy", "warmup")
    p = learning.load(FineTuneParams, "tokenizer")
    inputs = {"scenes": args.scenes, "proxy": args.proxy, "warmup": args.warmup}
    with stage.open("tokenizer", inputs, args.out, p) as run:
        proxy = load_proxy(args.proxy).to(device.best())
        net, config = assemble(proxy, *load_warm_up(args.warmup))
        train = to_tensor(Samples(args.scenes, "train").images())
        held_out = to_tensor(Samples(args.scenes, "val").images())
        rows = learn(p, net, proxy, train, held_out, run)
        run.save_model(net.state_dict(), config)
        run.save_curves(rows)
        net.eval()
        tokens = encode(net, held_out, BATCH)
        restored = decode(net, tokens, BATCH)
        run.save_metrics(
            {
                "psnr": float(image.psnr(restored, unit(held_out)).mean()),
                "patch_grid": image.patch_grid(restored, unit(held_out), proxy.downscale),
                **dict(codebook.usage(tokens.numpy(), net.codes)),
            }
        )
        pairs = torch.stack([unit(held_out[:24]), restored[:24]], 1).flatten(0, 1)
        figures.tile(to_array(pairs), columns=8, scale=3).save(run.figure("reconstructions.png"))


def assemble(proxy: VQGAN, titok: dict[str, Tensor], titok_config: dict) -> tuple[Tokenizer, dict]:
    """The warmed-up TiTok and the proxy's decoder as one tokenizer, its encoder and quantizer frozen."""
    config = {"titok": titok_config, "pixels": proxy.decoder.config}
    net = Tokenizer(**config)
    net.titok.load_state_dict(titok)
    net.pixels.load_state_dict(proxy.decoder.state_dict())
    net.codebook.copy_(proxy.quantizer.codebook)
    net.titok.encoder.requires_grad_(False)
    return net, config


class FineTuning(Task):
    """The decoder against its critic: two losses, two optimisers, one set of fakes."""

    def __init__(self, p: FineTuneParams, net: Tokenizer, proxy: VQGAN) -> None:
        super().__init__(net, [], self.losses, p.clip)
        self.p = p
        self.critic = Discriminator(width=p.critic_width, stages=p.critic_stages)
        self._optimisers = [
            *muon_adamw(net, p.muon_lr, p.lr, blocks=("blocks.", "levels.")),
            AdamW(self.critic.parameters(), p.critic_lr, (0.9, 0.999), fused=True),
        ]
        self.mean_real: Tensor
        self.mean_fake: Tensor
        self.eye = [proxy.encoder]  # in a list: a frozen measure, not a part of what is trained and saved
        self.register_buffer("mean_real", torch.zeros(()))
        self.register_buffer("mean_fake", torch.zeros(()))

    def on_fit_start(self) -> None:
        self.eye[0].to(self.device)

    def losses(self, net: Any, batch: Batch, progress: float) -> dict[str, Tensor]:
        """What the decoder minimises, without the critic."""
        return self.compare(net(batch["tokens"]), batch["images"])

    def compare(self, fakes: Tensor, images: Tensor) -> dict[str, Tensor]:
        error = fakes - images
        mse, l1 = error.square().mean(), error.abs().mean()
        with torch.no_grad():
            truth = self.eye[0].features(images)
        perceptual = feature_distance(self.eye[0].features(fakes), truth)
        return {"loss": mse + self.p.l1 * l1 + self.p.perceptual * perceptual, "mse": mse, "perceptual": perceptual}

    def training_step(self, batch: Batch, index: int) -> dict[str, Tensor]:
        *decoder, critic = self.optimizers()  # type: ignore[misc, attr-defined]
        fakes, images = self.net(batch["tokens"]), batch["images"]
        losses = self.compare(fakes, images)
        weight = self.p.adversarial * min(1.0, max(0.0, (self.progress - self.p.critic_start) / 0.1))
        if weight:
            self.critic.requires_grad_(False)
            losses["adversarial"] = -self.critic(fakes).float().mean()
            losses["loss"] = losses["loss"] + weight * losses["adversarial"]
            self.critic.requires_grad_(True)
        self.manual_backward(losses["loss"])
        self.update(self.net, decoder)
        if self.progress >= self.p.critic_start:
            losses["critic"] = self.judge(images, fakes.detach())
            self.manual_backward(losses["critic"])
            self.update(self.critic, critic)
        return {k: v.detach() for k, v in losses.items()}

    def judge(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the critic minimises; moves the running means of its scores."""
        real, fake = self.critic(torch.cat([real, fake])).float().chunk(2)
        loss = hinge_critic(real, fake) + self.p.lecam * lecam(real, fake, self.mean_real, self.mean_fake)
        self.mean_real.lerp_(ranks.mean(real.detach().mean()), 0.1)
        self.mean_fake.lerp_(ranks.mean(fake.detach().mean()), 0.1)
        return loss


def learn(
    p: FineTuneParams, net: Tokenizer, proxy: VQGAN, train: Tensor, held_out: Tensor, run: stage.Run
) -> list[dict]:
    """Train `net`'s decoders on uint8 images (N, 3, H, W), leaving the averaged weights in it; returns the curves."""
    torch.manual_seed(p.seed)
    net.to(device.best())
    tokens = torch.stack([encode(net, train, BATCH), encode(net, train.flip(-1), BATCH)])  # (2, N, K)
    validation = [{"images": unit(part), "tokens": encode(net, part, BATCH)} for part in held_out.split(BATCH)]
    net.train()

    def make(indices: Tensor, random: torch.Generator) -> Batch:
        mirrored = torch.rand(len(indices), generator=random) < 0.5
        return {"images": flip(unit(train[indices]), mirrored), "tokens": tokens[mirrored.long(), indices]}

    batches = Batches(len(train), p.batch, p.steps, p.seed, make)

    return fit(FineTuning(p, net, proxy), batches, Fit.of(p, accelerate=p.accelerate), run, validation)


if __name__ == "__main__":
    entry.run(main)
