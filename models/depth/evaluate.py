"""Measure the depth teacher and student on held-out scenes and on the motorcycle photograph.

    python -m models.depth.evaluate --teacher artifacts/depth-teacher --student artifacts/depth-student/small \\
        --scenes artifacts/scenes --photos artifacts/photos --out artifacts/evaluate/depth

Writes metrics.json ({teacher: {...}, small: {...}}), per_sample.parquet and figures/, in about 20 s on one
core of an EPYC 9004.
Every number is taken after aligning scale and shift of the disparity to the truth by least squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file
from torch import nn

from data.core import entry, params
from data.core.samples import Samples
from models.core import device, stage
from models.depth import motorcycle, net, panels
from models.depth.params import EvaluateParams
from models.metrics import depth as metrics

BATCH = 32  # pictures predicted at once
MEASURES = ("abs_rel", "delta1", "rmse", "pair_accuracy")


def main() -> None:
    args = stage.arguments(__doc__, "teacher", "student", "scenes", "photos")
    p = params.load(EvaluateParams, "evaluate.depth")
    inputs = {"teacher": args.teacher, "student": args.student, "scenes": args.scenes, "photos": args.photos}
    with stage.open("evaluate@depth", inputs, args.out, p) as run:
        folders = {"teacher": args.teacher, "small": args.student}
        models = {name: net.load(folder).to(device.best()) for name, folder in folders.items()}
        samples = Samples(args.scenes, "val")
        seen = in_shards(models, samples, p.per_shard * BATCH, run)
        predicted = {name: seen[name] for name in models}
        rows = [row for name in models for row in measures(name, seen, samples)]
        photograph = motorcycle.read(args.photos)
        seen = {name: motorcycle.predict(model, photograph, p.motorcycle) for name, model in models.items()}
        run.save_metrics({name: summary(name, rows) | motorcycle.measure(seen[name], photograph) for name in models})
        write_samples(rows, args.out)
        panels.by_class(samples, predicted).save(run.figure("panels.png"))
        motorcycle.panel(photograph, seen).save(run.figure("motorcycle.png"))


def in_shards(models: Mapping[str, nn.Module], samples: Samples, size: int, run: stage.Run) -> dict[str, np.ndarray]:
    """What every model predicts, and how good it is, in shards of `size` (whole batches) scenes."""
    made = run.shards(-(-len(samples) // size))
    for index in made.missing:
        some = range(index * size, min((index + 1) * size, len(samples)))
        made.make(index, partial(save_file, look(models, samples, some)))
    found = [load_file(file) for file in made.files()]
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def look(models: Mapping[str, nn.Module], samples: Samples, some: range) -> dict[str, np.ndarray]:
    """By model's name float32 disparities (n, H, W), and by MODEL.MEASURE what each is worth, (n,)."""
    images, truths = np.stack([samples.image(i) for i in some]), [samples.disparity(i) for i in some]
    found = {name: net.predict(model, images, BATCH) for name, model in models.items()}
    for name in models:
        scores = [dict(metrics.scores(p, t, seed=i)) for i, p, t in zip(some, found[name], truths, strict=True)]
        found |= {f"{name}.{measure}": np.array([one[measure] for one in scores]) for measure in MEASURES}
    return found


def measures(model: str, seen: Mapping[str, np.ndarray], samples: Samples) -> list[dict]:
    """One row per held-out scene: key, class, model and every measure."""
    return [
        {
            "key": samples.keys[i],
            "class": samples.class_names[samples.labels[i]],
            "model": model,
            **{name: float(seen[f"{model}.{name}"][i]) for name in MEASURES},
        }
        for i in range(len(samples))
    ]


def summary(model: str, rows: list[dict]) -> dict[str, float]:
    """Means over the scenes: every measure, and delta1 of every class."""
    own = [row for row in rows if row["model"] == model]
    found = {name: mean(own, name) for name in MEASURES}
    for name in sorted({row["class"] for row in own}):
        found[f"delta1_{name}"] = mean([row for row in own if row["class"] == name], "delta1")
    return found


def mean(rows: list[dict], name: str) -> float:
    """Mean over the rows that have the measure: a picture without a clear pair has no pair accuracy."""
    return float(np.nanmean([row[name] for row in rows]))


def write_samples(rows: list[dict], out: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), out / "per_sample.parquet", compression="zstd")


if __name__ == "__main__":
    entry.run(main, parts=True)
