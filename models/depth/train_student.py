"""Train a depth student on the teacher's labels alone.

    python -m models.depth.train_student --photos artifacts/photos --scenes artifacts/scenes \\
        --labels artifacts/pseudo-labels --kind small --out artifacts/depth-student/small

Writes model/, metrics.json, curves.csv and figures/. On one core of an EPYC 9004 about two minutes for delta1 of
0.84 on held-out scenes. It sees pictures and pseudo-labels, never a true depth; the scenes' own depth is not even read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from data.core import entry
from data.core.samples import Samples
from models.core import learning, stage
from models.depth import net, panels, pseudo_labels
from models.depth.learn import Pairs, learn, save
from models.depth.params import TrainParams

POOLS = ("photos", "scenes")


SHOWN = 24  # pictures in the figure


def main() -> None:
    args = arguments()
    p = learning.load(TrainParams, f"depth.student.{args.kind}")
    inputs = {"photos": args.photos, "scenes": args.scenes, "labels": args.labels}
    with stage.open(f"depth-student@{args.kind}", inputs, args.out, p) as run:
        held_out = pool(inputs, "val")
        model, rows = learn(p.net, p.learn, p.seed, pool(inputs, "train"), held_out, run, p.accelerate)
        save(model, p.net, run)
        run.save_curves(rows)
        run.save_metrics({"label_error": rows[-1]["val_ssi"], "label_gradient_error": rows[-1]["val_gradient"]})
        some = np.linspace(0, len(held_out.images) - 1, min(SHOWN, len(held_out.images))).astype(int)  # of every pool
        predicted = net.predict(model, held_out.images[some])
        panels.beside(held_out.images[some], predicted, held_out.disparities[some]).save(run.figure("held_out.png"))


def pool(inputs: dict[str, Path], split: str) -> Pairs:
    """The pictures of one split of all pools, one pool after the other, with their pseudo-labels."""
    images, labels = [], []
    for name in POOLS:
        samples = Samples(inputs[name], split)
        images.append(samples.images())
        labels.append(pseudo_labels.read(inputs["labels"], name, samples.keys))
    return Pairs(np.concatenate(images), np.concatenate(labels))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", required=True, help="which section of depth.student in params.yaml")
    for name in (*POOLS, "labels", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    return parser.parse_args()


if __name__ == "__main__":
    entry.run(main)
