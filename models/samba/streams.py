"""Streams: the tokens of many pictures of a class in a row, as a set of tokens that any generator can be trained on.

    python -m models.samba.streams --tokens artifacts/tokens --pictures 32 --out artifacts/streams
    python -m models.generator.train --tokens artifacts/streams ... --kind samba    # with net.stream: 32

Every row holds `pictures` pictures of one class: its pictures in a random order, `--passes` times, cut into rows. A
picture returns only when all others of its class have been seen.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from data.core import entry
from data.core.params import UserError
from models.core import saved


@dataclass(frozen=True)
class Streams:
    """Tokens int64 (M, pictures * K) and the label (M,) of each row."""

    tokens: Tensor
    labels: Tensor


def make(tokens: Tensor, labels: Tensor, pictures: int, passes: int, random: torch.Generator) -> Streams:
    """Rows of `pictures` pictures each, of tokens (N, K) with labels (N,); what fills no row is left out."""
    rows, of = [], []
    for label in labels.unique().tolist():
        own = torch.nonzero(labels == label).flatten()
        order = torch.cat([own[torch.randperm(len(own), generator=random)] for _ in range(passes)])
        whole = order[: len(order) // pictures * pictures].view(-1, pictures)
        rows.append(tokens[whole].flatten(1))
        of.append(torch.full((len(whole),), label))
    made = Streams(torch.cat(rows), torch.cat(of))
    if not len(made.tokens):
        raise UserError(f"--pictures is {pictures}, but no class has as many in {passes} passes; raise --passes")
    return made


def main() -> None:
    args = arguments()
    source = args.tokens / "tokens.safetensors"
    if not source.exists():
        raise UserError(f"{source} does not exist; run the tokens stage first (dvc repro tokens)")
    stored, random = saved.tensors(source), torch.Generator().manual_seed(args.seed)
    made: dict[str, Tensor] = {}
    for split in ("train", "val"):
        tokens, labels = stored[f"{split}_tokens"], stored[f"{split}_labels"]
        streams = make(tokens, labels, args.pictures, args.passes, random)
        made |= {f"{split}_tokens": streams.tokens, f"{split}_labels": streams.labels}
    args.out.mkdir(parents=True, exist_ok=True)
    save_file({name: one.contiguous() for name, one in made.items()}, args.out / "tokens.safetensors")
    info = json.loads((args.tokens / "info.json").read_text())
    (args.out / "info.json").write_text(json.dumps({**info, "pictures": args.pictures}))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, required=True, metavar="DIR", help="output of the tokens stage")
    parser.add_argument("--pictures", type=int, required=True, metavar="N", help="in each row")
    parser.add_argument("--passes", type=int, default=4, metavar="N", help="over the pictures of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    for name in ("pictures", "passes"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, not {getattr(args, name)}")
    return args


if __name__ == "__main__":
    entry.run(main)
