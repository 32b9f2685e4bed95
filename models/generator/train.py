"""Train a generator on the tokens of a frozen tokenizer.

    python -m models.generator.train --tokens artifacts/tokens --tokenizer artifacts/tokenizer/model \\
        --kind maskgit --out artifacts/generator/maskgit

Writes model/, metrics.json, curves.csv and figures/ (first samples of each class). About two
minutes on one core of an EPYC 9004.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.core import entry
from data.core.params import UserError
from models.core import device, figures, learning, saved, stage
from models.core.optim import muon_adamw
from models.core.training import Batch, Batches, Fit, Task, fit
from models.generator import kinds
from models.generator.load import build, config, generate, load
from models.tokenizer.tokenizer import load as load_tokenizer


@dataclass(frozen=True)
class Tokens:
    """A tokenized data set: tokens int64 (N, K), labels int64 (N,), class names, number of codes, and the digest
    of the tokenizer that wrote them."""

    train: Tensor
    train_labels: Tensor
    val: Tensor
    val_labels: Tensor
    classes: list[str]
    codes: int
    tokenizer: str


def main() -> None:
    args = arguments()
    p = learning.load(kinds.params(args.kind).Params, f"generator.{args.kind}")
    inputs = {"tokens": args.tokens, "tokenizer": args.tokenizer}
    with stage.open(f"generator@{args.kind}", inputs, args.out, p) as run:
        tokens, tokenizer = read_tokens(args.tokens), load_tokenizer(args.tokenizer)
        parent = saved.weights_digest(args.tokenizer)
        if tokens.tokenizer != parent:
            raise UserError(
                f"{args.tokens} was made by the tokenizer {tokens.tokenizer}, but {args.tokenizer} holds {parent}; "
                "run the tokens stage again with this tokenizer"
            )
        codebook = tokenizer.titok.quantizer.codebook  # (codes, d)
        size = {"codes": tokens.codes, "classes": len(tokens.classes), "length": tokens.train.shape[1]}
        shape = {**size, **vars(p.net)}
        net, rows = learn(args.kind, shape, p, tokens, codebook, run)
        stored = config(args.kind, shape, p.sampler, tokens.classes, parent)
        generator = load(run.save_model(net.state_dict(), stored))
        generator.net.to(device.best())
        run.save_curves(rows)
        run.save_metrics({k: rows[-1][k] for k in ("val_loss", "val_nll", "val_accuracy")})
        labels = torch.arange(len(tokens.classes)).repeat_interleave(8)
        images = generate(generator, tokenizer.to(device.best()), labels, p.seed)
        figures.tile(images, columns=8, scale=2, row_labels=tokens.classes).save(run.figure("samples.png"))


def learn(
    kind: str, shape: dict[str, Any], p: Any, tokens: Tokens, codebook: Tensor, run: stage.Run
) -> tuple[Any, list[dict]]:
    """A net trained on the tokens, with averaged weights, and its curves."""
    torch.manual_seed(p.seed)
    net, code = build(kind, shape), kinds.code(kind)
    net.start_from_codebook(codebook)

    def make(indices: Tensor, random: torch.Generator) -> Batch:
        return code.batch(net, tokens.train[indices], tokens.train_labels[indices], p.label_drop, random)

    optimisers = muon_adamw(net, p.muon_lr, p.lr, p.weight_decay, betas=(0.9, 0.96))
    plan = Fit.of(p, val_every=max(1, p.steps // 5), unit="sequences", accelerate=p.accelerate)
    batches = Batches(len(tokens.train), p.batch, p.steps, p.seed, make)
    rows = fit(Task(net, optimisers, code.step, p.clip), batches, plan, run, held_out(kind, net, tokens, p.batch))
    return net, rows


def held_out(kind: str, net: Any, tokens: Tokens, batch: int, draws: int = 4) -> list[Batch]:
    """Validation batches: each held-out row `draws` times (one mask alone is a noisy measure), labels kept."""
    random = torch.Generator().manual_seed(0)
    rows, labels = tokens.val.repeat(draws, 1), tokens.val_labels.repeat(draws)
    whole = kinds.code(kind).batch(net, rows, labels, 0.0, random)
    return [{k: v[i : i + batch] for k, v in whole.items()} for i in range(0, len(rows), batch)]


def read_tokens(folder: Path) -> Tokens:
    """The output of the tokens stage; UserError when it is not one."""
    for name in ("tokens.safetensors", "info.json"):
        if not (folder / name).exists():
            raise UserError(f"{folder / name} does not exist; run the tokens stage first (dvc repro tokens)")
    stored = saved.tensors(folder / "tokens.safetensors")
    info = json.loads((folder / "info.json").read_text())
    long = {k: v.long() for k, v in stored.items()}
    for split in ("train", "val"):
        within(long[f"{split}_tokens"], info["codes"], f"{folder}: {split}_tokens")
        within(long[f"{split}_labels"][:, None], len(info["classes"]), f"{folder}: {split}_labels")
    return Tokens(
        long["train_tokens"],
        long["train_labels"],
        long["val_tokens"],
        long["val_labels"],
        info["classes"],
        info["codes"],
        info["tokenizer"],
    )


def within(rows: Tensor, count: int, what: str) -> None:
    """UserError that names the first row (N, K) which holds something beyond 0 to count - 1."""
    wrong = torch.nonzero(((rows < 0) | (rows >= count)).any(1)).flatten()
    if len(wrong):
        raise UserError(f"{what}: row {int(wrong[0])} goes beyond 0 to {count - 1}; run the tokens stage again")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("tokens", "tokenizer", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    parser.add_argument("--kind", required=True, help=f"one of {', '.join(kinds.names())}")
    args = parser.parse_args()
    kinds.check(args.kind, "--kind: ")
    return args


if __name__ == "__main__":
    entry.run(main)
