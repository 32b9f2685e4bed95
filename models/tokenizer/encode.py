"""Encode all scenes, and the mirror images of those to train on, to tokens: what the generators learn from.

    python -m models.tokenizer.encode --scenes artifacts/scenes --tokenizer artifacts/tokenizer --out artifacts/tokens

Writes tokens.safetensors - train_tokens (2 N, K), pictures and then their mirror images, train_labels (2 N,),
val_tokens (M, K), val_labels (M,) - and info.json with the codebook's size and the classes. About 10 s
on one core of an EPYC 9004.
"""

import json
from functools import partial

import torch
from safetensors.torch import save_file
from torch import Tensor

from data.core import entry, params, partitions
from data.core.samples import Samples
from models.core import device, saved, stage
from models.core.images import to_tensor, unit
from models.tokenizer.params import EncodeParams
from models.tokenizer.tokenizer import Tokenizer, load


def main() -> None:
    args = stage.arguments(__doc__, "scenes", "tokenizer")
    p = params.load(EncodeParams, "tokens")
    with stage.open("tokens", {"scenes": args.scenes, "tokenizer": args.tokenizer}, args.out, p) as run:
        net = load(args.tokenizer).to(device.best())
        train, held_out = Samples(args.scenes, "train"), Samples(args.scenes, "val")
        images = to_tensor(train.images())
        batches = [part for x in (images, images.flip(-1), to_tensor(held_out.images())) for part in x.split(p.batch)]
        whole = torch.cat(in_shards(net, batches, run.shards(-(-len(batches) // p.per_shard)), p.per_shard))
        stored = {
            "train_tokens": whole[: 2 * len(train)],
            "train_labels": torch.from_numpy(train.labels).repeat(2),
            "val_tokens": whole[2 * len(train) :],
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


def in_shards(net: Tokenizer, batches: list[Tensor], made: partitions.Shards, per_shard: int) -> list[Tensor]:
    """The tokens of all batches, a shard for every `per_shard`; a batch is never divided, as bytes may depend on it."""
    for index in made.missing:
        some = batches[index * per_shard : (index + 1) * per_shard]
        tokens = torch.cat([encode(net, images, len(images)) for images in some])
        made.make(index, partial(save_file, {"tokens": tokens}))
    return [saved.tensors(file)["tokens"] for file in made.files()]


def encode(net: Tokenizer, images: Tensor, batch: int) -> Tensor:
    """uint8 (N, 3, H, W) -> tokens (N, K), int64."""
    return device.in_batches(net, lambda part: net.encode(unit(part)), images, batch)


def decode(net: Tokenizer, tokens: Tensor, batch: int) -> Tensor:
    """Tokens (N, K) -> images (N, 3, H, W) in [0, 1]."""
    return device.in_batches(net, net.decode, tokens, batch)


if __name__ == "__main__":
    entry.run(main, parts=True)
