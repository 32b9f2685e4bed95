"""Evaluate a generator: draw pictures of every class and hold them against real ones.

    python -m models.generator.evaluate --model artifacts/generator/maskgit/model \\
        --tokenizer artifacts/tokenizer/model --scenes artifacts/scenes --out artifacts/evaluate/maskgit

Writes metrics.json, per_sample.parquet and figures/ (a grid of samples by class; samples beside the training pictures
nearest to them, which would show copies). About 20 s on one core of an EPYC 9004.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from data.core import entry, params
from data.core.samples import Samples
from models.core import device, figures, saved, stage
from models.core.images import flip, to_array, to_tensor, unit
from models.generator import load, probe
from models.generator.params import EvaluateParams
from models.metrics.fwd import fwd
from models.metrics.precision_recall import precision_recall
from models.tokenizer.tokenizer import Tokenizer
from models.tokenizer.tokenizer import load as load_tokenizer

SHOWN = 8  # samples per class in the grid


@dataclass(frozen=True)
class Pictures:
    """uint8 pictures (N, 3, H, W) and their labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    @staticmethod
    def of(samples: Samples) -> Pictures:
        return Pictures(to_tensor(samples.images()), torch.from_numpy(samples.labels))


@dataclass(frozen=True)
class Seen:
    """What the probe makes of pictures: probabilities (N, classes) and features (N, D)."""

    probability: Tensor
    features: Tensor

    def agreement(self, labels: Tensor) -> float:
        """In % of the pictures."""
        return 100 * (self.probability.argmax(1) == labels).double().mean().item()


def main() -> None:
    args = stage.arguments(__doc__, "model", "tokenizer", "scenes")
    inputs = {"model": args.model, "tokenizer": args.tokenizer, "scenes": args.scenes}
    generator = load.load(args.model)
    load.check_tokenizer(generator, args.tokenizer)
    p = params.load(EvaluateParams, f"evaluate.{generator.kind}")
    with stage.open(f"evaluate@{generator.kind}", inputs, args.out, p) as run:
        generator.net.to(device.best())
        tokenizer = load_tokenizer(args.tokenizer).to(device.best())
        train_samples = Samples(args.scenes, "train")
        train, held_out = Pictures.of(train_samples), Pictures.of(Samples(args.scenes, "val"))
        labels = torch.arange(len(generator.classes)).repeat_interleave(p.samples_per_class)
        generated = Pictures(draw(generator, tokenizer, labels, p.seed, run), labels)
        classifier = probe.train(
            train.images, train.labels, len(generator.classes), p.probe_steps, p.probe_batch, p.seed
        )
        decoded = to_tensor(load.reconstruct(tokenizer, held_out.images))
        seen = Seen(*probe.look(classifier, generated.images))
        metrics = dict(compare(generated, train, held_out, decoded, classifier, seen, generator.classes, p.seed))
        run.save_metrics(metrics)
        distance, nearest, mirrored = nearest_neighbours(generated.images, train.images)
        save_samples(args.out, generated.labels, seen, distance, [train_samples.keys[i] for i in nearest])
        grid(generated, seen, generator.classes).save(run.figure("samples.png"))
        copies(generated, flip(train.images[nearest], mirrored), distance, generator.classes).save(
            run.figure("nearest.png")
        )
        run.say(
            f"gFWD {metrics['gfwd']:.3f} (real {metrics['real_fwd']:.3f}), "
            f"class agreement {metrics['class_agreement']:.0f} % (probe {metrics['probe_accuracy']:.0f} %)"
        )


def draw(generator: load.Generator, tokenizer: Tokenizer, labels: Tensor, seed: int, run: stage.Run) -> Tensor:
    """Pictures uint8 (N, 3, H, W) of the classes `labels` (N,), a shard and a seed for every batch."""
    pieces = labels.split(load.BATCH)
    made = run.shards(len(pieces))
    for index in made.missing:
        began = time.monotonic()
        own = int(np.random.SeedSequence([seed, index]).generate_state(1)[0])
        images = to_tensor(load.generate(generator, tokenizer, pieces[index], own))
        run.tracker.metrics({"images_per_second": len(images) / (time.monotonic() - began)}, index)
        made.make(index, partial(save_file, {"images": images}))
    return torch.cat([saved.tensors(file)["images"] for file in made.files()])


def compare(
    generated: Pictures,
    train: Pictures,
    held_out: Pictures,
    decoded: Tensor,
    classifier: probe.Probe,
    seen: Seen,
    classes: tuple[str, ...],
    seed: int,
) -> Iterator[tuple[str, float]]:
    """Every metric of the generator as (name, value).

    `decoded` are the held-out pictures after the tokenizer: what a perfect generator over these tokens could reach.
    The real distance is taken with as many training pictures as there are generated ones (the bias depends on it).
    """
    chosen = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(seed))[: len(generated.images)]
    real = to_array(held_out.images)
    yield "gfwd", fwd(to_array(generated.images), real)
    yield "real_fwd", fwd(to_array(train.images[chosen]), real)
    real_seen, decoded_seen = (Seen(*probe.look(classifier, x)) for x in (held_out.images, decoded))
    precision, recall = precision_recall(real_seen.features, seen.features)
    yield "precision", precision
    yield "recall", recall
    yield "class_agreement", seen.agreement(generated.labels)
    for index, name in enumerate(classes):
        of_class = generated.labels == index
        yield f"class_agreement_{name}", 100 * (seen.probability[of_class].argmax(1) == index).double().mean().item()
    yield "probe_accuracy", real_seen.agreement(held_out.labels)
    yield "probe_accuracy_decoded", decoded_seen.agreement(held_out.labels)
    own = nearest_neighbours(generated.images, train.images)[0].median()
    yield "novelty", float(own / nearest_neighbours(decoded, train.images)[0].median())


def nearest_neighbours(images: Tensor, among: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Root mean squared difference (N,) in [0, 1] to, and index (N,) of, the nearest of `among`, at 16 x 16 pixels.

    The pictures of `among` are also tried mirrored, as training saw them; the third value (N,) says whether the mirror
    image was the nearer one.
    """
    a, b, mirrored = (thumbnails(x) for x in (images, among, among.flip(-1)))
    plain, turned = torch.cdist(a, b), torch.cdist(a, mirrored)
    least = (torch.minimum(plain, turned) / a.shape[1] ** 0.5).min(dim=1)  # over (N, M)
    return least.values, least.indices, (turned < plain).gather(1, least.indices[:, None])[:, 0]


def thumbnails(images: Tensor) -> Tensor:
    """uint8 (N, 3, H, W) -> float (N, 768)."""
    return F.adaptive_avg_pool2d(unit(images), 16).flatten(1)


def save_samples(out: Path, labels: Tensor, seen: Seen, distance: Tensor, nearest: list[str]) -> None:
    """per_sample.parquet: a row per generated picture."""
    columns: dict[str, Any] = {
        "sample": np.arange(len(labels)),
        "class_asked": labels.numpy(),
        "class_seen": seen.probability.argmax(1).numpy(),
        "confidence": seen.probability.gather(1, labels[:, None])[:, 0].numpy(),  # of the class asked for
        "nearest": nearest,
        "nearest_distance": distance.numpy(),
    }
    pq.write_table(pa.table(columns), out / "per_sample.parquet", compression="zstd")


def grid(generated: Pictures, seen: Seen, classes: tuple[str, ...]) -> Image.Image:
    """The first samples of every class, a row per class, with how often the probe agrees."""
    names, rows = [], []
    for index, name in enumerate(classes):
        of_class = generated.labels == index
        agreed = (seen.probability[of_class].argmax(1) == index).double().mean().item()
        names.append(f"{name} {100 * agreed:.0f} %")
        rows.append(generated.images[of_class][:SHOWN])
    return figures.tile(to_array(torch.cat(rows)), columns=len(rows[0]), scale=2, row_labels=names)


def copies(generated: Pictures, nearest: Tensor, distance: Tensor, classes: tuple[str, ...]) -> Image.Image:
    """Of every class the four samples closest to a training picture, each beside that picture (mirrored
    where its mirror image is the closer one)."""
    rows = []
    for index in range(len(classes)):
        of_class = torch.nonzero(generated.labels == index).flatten()
        closest = of_class[distance[of_class].argsort()[:4]]
        rows.append(torch.stack([generated.images[closest], nearest[closest]], dim=1).flatten(0, 1))
    captions = ["sample", "nearest"] * (len(rows[0]) // 2)
    return figures.tile(to_array(torch.cat(rows)), len(rows[0]), scale=2, captions=captions, row_labels=classes)


if __name__ == "__main__":
    entry.run(main, parts=True)
