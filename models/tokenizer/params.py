"""Parameters of the tokenizer's stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from data.core.params import Count, Range, Share
from models.core.learning import Batch, Heads, Layers, Quantised, Rate, Threads, Training, Weight, Width

Patch = Annotated[int, Range(1, 256)]
Latents = Annotated[int, Range(1, 4096)]
Tokens = Annotated[int, Range(2, 2**20)]


@dataclass(frozen=True, kw_only=True)
class WarmUpParams(Quantised):
    """Section `warmup`.

    The paper's loss is the cross-entropy and the quantizer's. Two named terms are ours and can be 0: `embedding`
    weighs the distance of the expected code vector to the true one (a wrong code that looks alike costs less), `pixels`
    that of a linear read-out of each place's pixels, thrown away afterwards: together they make a short run keep in
    the tokens what the eye sees first.
    """

    patch: Patch
    width: Width
    encoder_layers: Layers
    decoder_layers: Layers
    heads: Heads
    latents: Latents
    token_dim: Width
    codes: Tokens
    embedding: Weight
    pixels: Weight

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, divisor in (("heads", self.heads), ("4, as positions need", 4)):
            if self.width % divisor:
                raise ValueError(f"width must be a multiple of {name} ({divisor}), not {self.width}")


@dataclass(frozen=True, kw_only=True)
class FineTuneParams(Training):
    """Section `tokenizer`. The loss is mse + l1 * |error| + perceptual * features + adversarial * critic.

    `critic_start` is the share of steps before the discriminator joins; its weight then grows over a tenth of them.
    """

    l1: Weight
    perceptual: Weight
    adversarial: Weight
    lecam: Weight
    critic_start: Share
    critic_lr: Rate
    critic_width: Annotated[int, Range(1, 4096)]
    critic_stages: Annotated[int, Range(0, 12)]

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = [self.critic_width * 2**stage for stage in range(self.critic_stages + 1)]
        if widths[-1] > 8192:
            raise ValueError(
                f"critic_width {self.critic_width} doubled in {self.critic_stages} critic_stages gives {widths[-1]}, "
                "more than 8192; lower one of them"
            )
        if any(2 * width % min(32, width) for width in widths[:-1]):
            raise ValueError(
                f"critic_width must be a power of two or a multiple of 16, so that its channels make groups, not "
                f"{self.critic_width}"
            )


@dataclass(frozen=True)
class EncodeParams:
    """Section `tokens`: `batch` pictures are encoded at once, and `per_shard` batches kept as one shard."""

    threads: Threads
    batch: Batch
    per_shard: Count


@dataclass(frozen=True)
class EvaluateParams:
    """Section `evaluate.tokenizer`: pictures of each class in the figure, and batches kept as one shard."""

    threads: Threads
    per_class: Annotated[int, Range(1, 1000)]
    per_shard: Count
