"""Train the depth teacher on the rendered scenes, whose depth is exact.

    python -m models.depth.train_teacher --scenes artifacts/scenes --out artifacts/depth-teacher

Writes model/ (loads with transformers' `from_pretrained`), metrics.json, curves.csv and figures/. On one core of an
EPYC 9004 about five minutes for delta1 of 0.91 on held-out scenes, with objects, glass and mirrors standing out.
"""

from __future__ import annotations

from data.core import entry
from data.core.samples import Samples
from models.core import learning, stage
from models.depth import net, panels
from models.depth.learn import Pairs, learn, mean_scores, save
from models.depth.params import TrainParams


def main() -> None:
    args = stage.arguments(__doc__, "scenes")
    p = learning.load(TrainParams, "depth.teacher")
    with stage.open("depth-teacher", {"scenes": args.scenes}, args.out, p) as run:
        held_out = Samples(args.scenes, "val")
        truth = pairs(held_out)
        model, rows = learn(p.net, p.learn, p.seed, pairs(Samples(args.scenes, "train")), truth, run, p.accelerate)
        save(model, p.net, run)
        run.save_curves(rows)
        predicted = net.predict(model, truth.images)
        run.save_metrics(mean_scores(predicted, truth.disparities))
        panels.by_class(held_out, {"teacher": predicted}).save(run.figure("held_out.png"))


def pairs(samples: Samples) -> Pairs:
    """Pictures of a data set with their true disparities."""
    return Pairs(samples.images(), samples.disparities())


if __name__ == "__main__":
    entry.run(main)
