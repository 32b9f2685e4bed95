"""Measure the depth teacher and student on held-out scenes and on the motorcycle photograph.

    python -m models.depth.evaluate --teacher artifacts/depth-teacher --student artifacts/depth-student/small \\
        --scenes artifacts/scenes --photos artifacts/photos --out artifacts/evaluate/depth

Writes metrics.json ({teacher: {...}, small: {...}}), per_sample.parquet and figures/, in about 20 s on one core.
Every number is taken after aligning scale and shift of the disparity to the truth by least squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data import entry, params
from data.samples import Samples
from models import stage
from models.depth import motorcycle, net, panels
from models.metrics import depth as metrics


@dataclass(frozen=True)
class Params:
    """Section `evaluate.depth`: `motorcycle` is the size (height, width) the photograph is shown at."""

    threads: int
    motorcycle: tuple[int, ...]


def main() -> None:
    args = stage.arguments(__doc__, "teacher", "student", "scenes", "photos")
    p = params.load(Params, "evaluate.depth")
    inputs = {"teacher": args.teacher, "student": args.student, "scenes": args.scenes, "photos": args.photos}
    with stage.open("evaluate@depth", inputs, args.out, p) as run:
        models = {"teacher": net.load(args.teacher), "small": net.load(args.student)}
        samples = Samples(args.scenes, "val")
        images, truths = samples.images(), samples.disparities()
        predicted = {name: net.predict(model, images) for name, model in models.items()}
        rows = [row for name in models for row in measure(name, predicted[name], truths, samples)]
        photograph = motorcycle.read(args.photos)
        seen = {name: motorcycle.predict(model, photograph, p.motorcycle) for name, model in models.items()}
        run.save_metrics({name: summary(name, rows) | motorcycle.measure(seen[name], photograph) for name in models})
        write_samples(rows, args.out)
        panels.by_class(samples, predicted).save(run.figure("panels.png"))
        motorcycle.panel(photograph, seen).save(run.figure("motorcycle.png"))


def measure(model: str, predicted: np.ndarray, truths: np.ndarray, samples: Samples) -> list[dict]:
    """One row per held-out scene: key, class, model and every measure."""
    return [
        {
            "key": samples.keys[i],
            "class": samples.class_names[samples.labels[i]],
            "model": model,
            **dict(metrics.scores(predicted[i], truths[i], seed=i)),
        }
        for i in range(len(truths))
    ]


def summary(model: str, rows: list[dict]) -> dict[str, float]:
    """Means over the scenes: every measure, and delta1 of every class."""
    own = [row for row in rows if row["model"] == model]
    found = {name: mean(own, name) for name in ("abs_rel", "delta1", "rmse", "pair_accuracy")}
    for name in sorted({row["class"] for row in own}):
        found[f"delta1_{name}"] = mean([row for row in own if row["class"] == name], "delta1")
    return found


def mean(rows: list[dict], name: str) -> float:
    """Mean over the rows that have the measure: a picture without a clear pair has no pair accuracy."""
    return float(np.nanmean([row[name] for row in rows]))


def write_samples(rows: list[dict], out: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), out / "per_sample.parquet", compression="zstd")


if __name__ == "__main__":
    entry.run(main)
