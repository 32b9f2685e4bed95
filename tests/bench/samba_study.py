"""Samba, a Llama-like net of as many parameters, and MaskGIT on the same tokens: what they draw, and streams.

    python -m tests.bench.samba_study --tokens artifacts/tokens --tokenizer artifacts/tokenizer/model \\
        --scenes artifacts/scenes [--pictures 8]

Reads the sections generator.maskgit, generator.samba and evaluate.samba of params.yaml, which say sizes and steps.
Prints two tables: pictures (a MaskGIT's nll is over masked tokens and no other's is), and streams: learned from
`--pictures` pictures of a class in a row, loss a token there and in rows four times as long. Writes nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.core import params, portable
from data.core.samples import Samples
from models.core import stage
from models.core.images import to_tensor
from models.generator import evaluate, kinds, load, probe
from models.generator.train import Tokens, learn, read_tokens
from models.samba import streams
from models.samba.generator import step
from models.tokenizer.tokenizer import Tokenizer
from models.tokenizer.tokenizer import load as load_tokenizer
from models.tracking.training_run import NullTracker
from tests.bench.sequences import count, matching_mlp


@dataclass(frozen=True)
class Trained:
    """A net with what it took: processor seconds of the training, and tokens learned in each of them."""

    net: Any
    seconds: float
    rate: float
    loss: float  # held out


def main() -> None:
    args = arguments()
    stage.settle(threads=1)
    tokens, tokenizer = read_tokens(args.tokens), load_tokenizer(args.tokenizer)
    sections = parameters(tokens)
    trained = {}
    for kind, p in sections.items():
        trained[kind] = train(kind, p, tokens, tokenizer)
    judged = judge({kind: trained[kind].net for kind in trained}, sections, tokens, tokenizer, args.scenes)
    print(table(trained, judged))
    print()
    print(streamed(sections, tokens, tokenizer, args.pictures, args.steps))


def parameters(tokens: Tokens) -> dict[str, Any]:
    """The parameters of each kind; the baseline's are Samba's, its feed-forward as wide as makes them as large."""
    found = {kind: params.load(kinds.params(kind).Params, f"generator.{kind}") for kind in ("maskgit", "samba")}
    size = asdict(found["samba"].net)
    samba = load.build("samba", shape(tokens, size))
    size = {name: value for name, value in size.items() if name not in ("window", "state")}

    def llama(mlp: int) -> Any:
        return load.build("llama", {**shape(tokens, size), "mlp": mlp})

    own = kinds.params("llama")
    same = {k: v for k, v in vars(found["samba"]).items() if k != "net"}
    found["llama"] = own.Params(**same, net=own.Size(**{**size, "mlp": matching_mlp(samba, llama)}))
    return found


def shape(tokens: Tokens, net: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a net over these tokens."""
    return {"codes": tokens.codes, "classes": len(tokens.classes), "length": tokens.train.shape[1], **net}


def train(kind: str, p: Any, tokens: Tokens, tokenizer: Tokenizer) -> Trained:
    """As the stage does."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        run = stage.Run(f"generator@{kind}", Path(folder), NullTracker(), None)
        codebook = tokenizer.titok.quantizer.codebook
        net, rows = learn(kind, shape(tokens, vars(p.net)), p, tokens, codebook, run)
        seconds = time.process_time() - began
    return Trained(net.eval(), seconds, p.steps * p.batch * tokens.train.shape[1] / seconds, rows[-1]["val_nll"])


def judge(
    nets: Mapping[str, Any], sections: Mapping[str, Any], tokens: Tokens, tokenizer: Tokenizer, scenes: Path
) -> dict[str, dict[str, float]]:
    """The metrics of the evaluation, by kind, with one probe for all."""
    p = params.load(evaluate.EvaluateParams, "evaluate.samba")
    real, held = (evaluate.Pictures.of(Samples(scenes, split)) for split in ("train", "val"))
    labels = torch.arange(len(tokens.classes)).repeat_interleave(p.samples_per_class)
    classifier = probe.train(real.images, real.labels, len(tokens.classes), p.probe_steps, p.probe_batch, p.seed)
    decoded, found = to_tensor(load.reconstruct(tokenizer, held.images)), {}
    for kind, net in nets.items():
        drawn = load.Generator(net, kind, sections[kind].sampler, tuple(tokens.classes), tokens.tokenizer)
        began = time.process_time()
        rows = load.draw_tokens(drawn, labels, p.seed)
        seconds = time.process_time() - began
        images = to_tensor(load.generate(drawn, tokenizer, labels, p.seed))
        seen = evaluate.Seen(*probe.look(classifier, images))
        pictures = evaluate.Pictures(images, labels)
        found[kind] = dict(
            evaluate.compare(pictures, real, held, decoded, classifier, seen, tuple(tokens.classes), p.seed)
        )
        found[kind]["drawn"] = rows.numel() / seconds
    return found


def table(trained: Mapping[str, Trained], judged: Mapping[str, Mapping[str, float]]) -> str:
    """What each kind reached with its pictures."""
    rows = ["| | parameters | nll | gFWD | precision | recall | class | training, CPU s | learned, tokens/s | drawn |"]
    rows.append("|---|---|---|---|---|---|---|---|---|---|")
    for kind, one in trained.items():
        m = judged[kind]
        rows.append(
            f"| {kind} | {count(one.net):,} | {one.loss:.3f} | {m['gfwd']:.3f} | {m['precision']:.2f} "
            f"| {m['recall']:.2f} | {m['class_agreement']:.1f} % "
            f"| {one.seconds:.0f} | {one.rate:,.0f} | {m['drawn']:,.0f} tokens/s |"
        )
    real = next(iter(judged.values()))
    return "\n".join([*rows, f"between real sets: gFWD {real['real_fwd']:.3f}; probe {real['probe_accuracy']:.1f} %"])


def streamed(sections: Mapping[str, Any], tokens: Tokens, tokenizer: Tokenizer, pictures: int, steps: int) -> str:
    """Loss a token of nets that learned from streams, at that length and at four times it."""
    rows = [f"| streams of {pictures} | learned, tokens/s | loss at 1x | at 2x | at 4x |", "|---|---|---|---|---|"]
    learned = stretched(tokens, pictures)
    for kind in ("samba", "llama"):
        p = sections[kind]
        p = replace(p, batch=max(1, p.batch // pictures), steps=steps or p.steps, net=replace(p.net, stream=pictures))
        one = train(kind, p, learned, tokenizer)
        losses = [loss(one.net, stretched(tokens, pictures * times)) for times in (1, 2, 4)]
        rows.append(f"| {kind} | {one.rate:,.0f} | " + " | ".join(f"{x:.4f}" for x in losses) + " |")
    return "\n".join(rows)


def stretched(tokens: Tokens, pictures: int) -> Tokens:
    """The same as streams, of which those held out are as many at any length."""
    passes = -(-4 * pictures // int(tokens.val_labels.bincount().min()))
    random = torch.Generator().manual_seed(0)
    train = streams.make(tokens.train, tokens.train_labels, pictures, 4, random)
    val = streams.make(tokens.val, tokens.val_labels, pictures, max(1, passes), random)
    return replace(tokens, train=train.tokens, train_labels=train.labels, val=val.tokens, val_labels=val.labels)


@torch.no_grad()
def loss(net: Any, tokens: Tokens, batch: int = 4) -> float:
    """Nats a token of the held-out rows."""
    parts = zip(tokens.val.split(batch), tokens.val_labels.split(batch), strict=True)
    summed: list[Tensor] = [step(net, {"tokens": t, "labels": c}, 1.0)["nll"] * len(t) for t, c in parts]
    return float(torch.stack(summed).sum() / len(tokens.val))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("tokens", "tokenizer", "scenes"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    parser.add_argument("--pictures", type=int, default=8, metavar="N", help="in a row of a stream")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="of the streams' trainings; else Samba's")
    return parser.parse_args()


if __name__ == "__main__":
    portable.enter()
    main()
