"""Label pictures that have no depth with the teacher: photographs, and the scenes' pictures without their depth.

    python -m models.depth.label --photos artifacts/photos --scenes artifacts/scenes \\
        --teacher artifacts/depth-teacher --out artifacts/pseudo-labels

Writes shards of 16-bit PNGs, index.parquet, info.json and figures/, in about 15 s on one core of an EPYC 9004.

The paper labels 62 million photographs; a few hundred tiles of six photographs cannot stand for them, so the pool
also takes the pictures of the scenes, never their true depth. A label is the mean of what the teacher says of a
picture and, mirrored back, of its mirror image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from torch import nn

from data.core import entry, params, shards
from data.core.samples import Samples
from models.core import device, stage
from models.depth import net, panels, pseudo_labels
from models.depth.params import LabelParams

SHOWN = 24


def main() -> None:
    args = stage.arguments(__doc__, "photos", "scenes", "teacher")
    p = params.load(LabelParams, "depth.labels")
    inputs = {"photos": args.photos, "scenes": args.scenes, "teacher": args.teacher}
    with stage.open("pseudo-labels", inputs, args.out, p) as run:
        teacher = net.load(args.teacher).to(device.best())
        pools = {name: Samples(inputs[name]) for name in ("photos", "scenes")}
        pieces = [piece for name, samples in pools.items() for piece in split(name, len(samples), p.per_shard)]
        made = run.shards(len(pieces))
        images = {name: pools[name].images() for name in {pieces[index].pool for index in made.missing}}
        for index in made.missing:
            piece = pieces[index]
            made.make(index, partial(make, teacher, piece, pools[piece.pool].keys, images[piece.pool], p.batch))
            run.say(f"labelled {piece.pool} {piece.start} to {piece.stop - 1}")
        found = [load_file(file) for file in made.files()]
        rows = [row for piece, one in zip(pieces, found, strict=True) for row in place(args.out, piece, one["tar"])]
        pseudo_labels.write_index(args.out, rows)
        for name, samples in pools.items():
            of_pool = [one["shown"] for piece, one in zip(pieces, found, strict=True) if piece.pool == name]
            pictures = np.stack([samples.image(i) for i in shown(len(samples))])
            panels.beside(pictures, np.concatenate(of_pool)).save(run.figure(f"{name}.png"))
        counts = {name: len(samples) for name, samples in pools.items()}
        (args.out / "info.json").write_text(json.dumps({"labels": counts}, indent=2, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Piece:
    """What is labelled together, and kept as one shard: the pictures from `start` to `stop` of a pool."""

    pool: str
    number: int
    start: int
    stop: int

    @property
    def shard(self) -> str:
        return shards.name(self.pool, self.number)


def split(pool: str, count: int, per_shard: int) -> list[Piece]:
    starts = range(0, count, per_shard)
    return [Piece(pool, number, start, min(start + per_shard, count)) for number, start in enumerate(starts)]


def make(teacher: nn.Module, piece: Piece, keys: list[str], images: np.ndarray, batch: int, file: Path) -> None:
    """Label a piece: the tar shard, and as they are the labels that the figure shows."""
    labels = label_range(teacher, images, piece.start, piece.stop, batch)
    tar = pseudo_labels.pack(keys[piece.start : piece.stop], labels)
    inside = [i - piece.start for i in shown(len(images)) if piece.start <= i < piece.stop]
    save_file({"tar": np.frombuffer(tar, np.uint8), "shown": np.ascontiguousarray(labels[inside])}, file)


def place(out: Path, piece: Piece, tar: np.ndarray) -> list[dict]:
    """Write a finished shard; returns its rows for the index."""
    (out / piece.shard).write_bytes(tar.tobytes())
    return pseudo_labels.rows(out / piece.shard, piece.pool)


def shown(count: int) -> list[int]:
    """Which pictures of a pool the figure shows."""
    return np.linspace(0, count - 1, min(SHOWN, count)).astype(int).tolist()


def label_range(teacher: nn.Module, images: np.ndarray, start: int, stop: int, batch: int) -> np.ndarray:
    """The labels of some pictures out of the same batches as if all were labelled: bytes may depend on a batch."""
    first, last = start // batch * batch, min(-(-stop // batch) * batch, len(images))
    return label(teacher, images[first:last], batch)[start - first : stop - first]


def label(teacher: nn.Module, images: np.ndarray, batch: int) -> np.ndarray:
    """Disparity, float32 (N, H, W), of pictures uint8 (N, H, W, 3): the mean over both mirror images."""
    mirrored = net.predict(teacher, np.ascontiguousarray(images[:, :, ::-1]), batch)
    return (net.predict(teacher, images, batch) + mirrored[:, :, ::-1]) / 2


if __name__ == "__main__":
    entry.run(main, parts=True)
