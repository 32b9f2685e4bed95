"""Encode all scenes, and the mirror images of those to train on, to tokens: what the generators learn from.

    python -m models.tokenizer.encode --scenes artifacts/scenes --tokenizer artifacts/tokenizer --out artifacts/tokens

Writes tokens.safetensors - train_tokens (2 N, K), pictures and then their mirror images, train_labels (2 N,),
val_tokens (M, K), val_labels (M,) - and info.json with the codebook's size and the classes. About 10 s on one core.
"""

import json
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import Tensor

from data import entry, params
from data.samples import Samples
from models import saved, stage
from models.images import to_tensor, unit
from models.tokenizer.tokenizer import Tokenizer, load


@dataclass(frozen=True)
class Params:
    """Section `tokens`: `batch` pictures are encoded at once."""

    threads: int
    batch: int


def main() -> None:
    args = stage.arguments(__doc__, "scenes", "tokenizer")
    p = params.load(Params, "tokens")
    with stage.open("tokens", {"scenes": args.scenes, "tokenizer": args.tokenizer}, args.out, p) as run:
        net = load(args.tokenizer)
        train, held_out = Samples(args.scenes, "train"), Samples(args.scenes, "val")
        images, labels = to_tensor(train.images()), torch.from_numpy(train.labels)
        stored = {
            "train_tokens": torch.cat([encode(net, images, p.batch), encode(net, images.flip(-1), p.batch)]),
            "train_labels": labels.repeat(2),
            "val_tokens": encode(net, to_tensor(held_out.images()), p.batch),
            "val_labels": torch.from_numpy(held_out.labels),
        }
        save_file({name: tensor.int() for name, tensor in stored.items()}, args.out / "tokens.safetensors")
        info = {
            "codes": net.codes,
            "classes": train.class_names,
            "tokenizer": saved.weights_digest(args.tokenizer),
        }
        (args.out / "info.json").write_text(json.dumps(info, indent=2) + "\n")
        run.say(f"{len(stored['train_tokens'])} rows of {stored['train_tokens'].shape[1]} tokens")


@torch.no_grad()
def encode(net: Tokenizer, images: Tensor, batch: int) -> Tensor:
    """uint8 (N, 3, H, W) -> tokens (N, K), int64."""
    return torch.cat([net.encode(unit(part)) for part in images.split(batch)])


if __name__ == "__main__":
    entry.run(main)
