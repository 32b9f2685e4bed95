"""Label pictures that have no depth with the teacher: photographs, and the scenes' pictures without their depth.

    python -m models.depth.label --photos artifacts/photos --scenes artifacts/scenes \\
        --teacher artifacts/depth-teacher --out artifacts/pseudo-labels

Writes shards of 16-bit PNGs, index.parquet, info.json and figures/, in about 15 s on one core.

The paper labels 62 million photographs; a few hundred tiles of six photographs cannot stand for them, so the pool
also takes the pictures of the scenes, never their true depth. A label is the mean of what the teacher says of a
picture and, mirrored back, of its mirror image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from torch import nn

from data import entry, params
from data.samples import Samples
from models import stage
from models.depth import net, panels, pseudo_labels

SHOWN = 24


@dataclass(frozen=True)
class Params:
    """Section `depth.labels`."""

    threads: int
    per_shard: int
    batch: int


def main() -> None:
    args = stage.arguments(__doc__, "photos", "scenes", "teacher")
    p = params.load(Params, "depth.labels")
    inputs = {"photos": args.photos, "scenes": args.scenes, "teacher": args.teacher}
    with stage.open("pseudo-labels", inputs, args.out, p) as run:
        teacher = net.load(args.teacher)
        rows, counts = [], {}
        for pool in ("photos", "scenes"):
            samples = Samples(inputs[pool])
            images = samples.images()
            labels = label(teacher, images, p.batch)
            rows += pseudo_labels.write(args.out, pool, samples.keys, labels, p.per_shard)
            counts[pool] = len(samples)
            run.say(f"labelled {len(samples)} {pool}")
            shown = np.linspace(0, len(images) - 1, min(SHOWN, len(images))).astype(int)
            panels.beside(images[shown], labels[shown]).save(run.figure(f"{pool}.png"))
        pseudo_labels.write_index(args.out, rows)
        (args.out / "info.json").write_text(json.dumps({"labels": counts}, indent=2, sort_keys=True) + "\n")


def label(teacher: nn.Module, images: np.ndarray, batch: int) -> np.ndarray:
    """Disparity, float32 (N, H, W), of pictures uint8 (N, H, W, 3): the mean over both mirror images."""
    mirrored = net.predict(teacher, np.ascontiguousarray(images[:, :, ::-1]), batch)
    return (net.predict(teacher, images, batch) + mirrored[:, :, ::-1]) / 2


if __name__ == "__main__":
    entry.run(main)
