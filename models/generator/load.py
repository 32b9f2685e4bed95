"""A trained generator from its folder, and pictures from it and its tokenizer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.core import params
from data.core.params import UserError
from models.core import device, saved
from models.core.images import to_array, unit
from models.generator import kinds
from models.tokenizer.tokenizer import Tokenizer

BATCH = 128  # pictures drawn at once; part of what a seed means


@dataclass(frozen=True)
class Generator:
    """A net with what its config.json says: how to draw, the classes, the digest of its tokenizer's weights."""

    net: Any
    kind: str
    sampling: Any
    classes: tuple[str, ...]
    tokenizer: str


@dataclass(frozen=True)
class Stored:
    """What config.json holds."""

    kind: str
    net: dict[str, Any]
    sampler: dict[str, Any]
    classes: tuple[str, ...]
    tokenizer: str


def config(kind: str, net: dict[str, Any], sampling: Any, classes: list[str], tokenizer: str) -> dict[str, Any]:
    """What config.json holds; `load` reads it."""
    return {"kind": kind, "net": net, "sampler": asdict(sampling), "classes": classes, "tokenizer": tokenizer}


def build(kind: str, arguments: dict[str, Any]) -> Any:
    """A new net of the kind; UserError names the known kinds."""
    return kinds.code(kind).Net(**arguments)


def load(folder: Path) -> Generator:
    """The generator of `folder`; UserError where there is none."""
    values, state = saved.read(folder)
    where = f"{saved.find(folder) / 'config.json'}:"
    stored = params.build(Stored, values, where)
    kind = kinds.code(kinds.check(stored.kind, f"{where} "))
    arguments = params.arguments(kind.Net, stored.net, f"{where} net")
    sampling = params.build(kinds.params(stored.kind).Sampling, stored.sampler, f"{where} sampler")
    if arguments["classes"] != len(stored.classes):
        raise UserError(
            f"{where} net.classes is {arguments['classes']}, but classes names {len(stored.classes)}; {saved.AGAIN}"
        )
    net = saved.restore(lambda: build(stored.kind, arguments), state, folder)
    return Generator(net, stored.kind, sampling, stored.classes, stored.tokenizer)


def check_tokenizer(generator: Generator, folder: Path) -> None:
    """UserError unless `folder` holds the very tokenizer whose tokens the generator learned."""
    found = saved.weights_digest(folder)
    if found != generator.tokenizer:
        raise UserError(
            f"the generator was trained on the tokens of tokenizer {generator.tokenizer}, but {folder} holds {found}: "
            "its tokens mean other pictures; use that tokenizer, or train the generator again on this one"
        )


@torch.no_grad()
def draw_tokens(generator: Generator, labels: Tensor, seed: int, how: Any = None) -> Tensor:
    """Tokens int64 (N, K) for the labels (N,) in [0, classes); the same seed draws the same on the same device."""
    net, place = generator.net, device.of(generator.net)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(generator.classes):
        wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
        raise UserError(f"label {wrong} is of no class; the generator's are 0 to {len(generator.classes) - 1}")
    random = torch.Generator(place).manual_seed(seed)

    def predict(tokens: Tensor, classes: Tensor) -> Tensor:
        # as it was trained, and faster
        with torch.autocast(tokens.device.type, torch.bfloat16, enabled=device.multiplies_bfloat16(tokens.device)):
            return net(tokens, classes)

    kind, how = kinds.code(generator.kind), how or generator.sampling
    return device.in_batches(net, lambda part: kind.sample(net, predict, part, how, random), labels, BATCH)


def generate(generator: Generator, tokenizer: Tokenizer, labels: Tensor, seed: int, how: Any = None) -> np.ndarray:
    """Pictures uint8 (N, H, W, 3) of the classes `labels` (N,); `how` replaces the sampler's defaults."""
    tokens = draw_tokens(generator, labels, seed, how)
    return to_array(device.in_batches(tokenizer, tokenizer.decode, tokens, BATCH))


def reconstruct(tokenizer: Tokenizer, images: Tensor) -> np.ndarray:
    """Pictures uint8 (N, 3, H, W) through the tokenizer and back, as uint8 (N, H, W, 3)."""
    back = device.in_batches(tokenizer, lambda part: tokenizer.decode(tokenizer.encode(unit(part))), images, BATCH)
    return to_array(back)
