"""Render the scenes: path-traced pictures of ten classes with exact depth, as tar shards.

    python -m data.scenes.render --out artifacts/scenes

With the default parameters (2,240 scenes of 64 pixels) it takes two to three minutes on two cores of an EPYC 9004. The
bytes depend on `seed` and the section `scenes` of params.yaml, never on the processor, the number of worker processes
(one per core; REMINT_WORKERS sets another number), interruptions or the parts it was made in (`data.core.partitions`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.core import checkpoint_store, entry, manifest, params, partitions, samples, shards
from data.core.params import UserError
from data.scenes import renderer
from data.scenes.grammar import NAMES
from data.scenes.params import Scenes
from data.scenes.sample import make


def sample(p: Scenes, index: int) -> tuple[str, dict[str, bytes]]:
    """Key and members of one sample, encoded."""
    made = make(p.seed, index, p.size, p.samples_per_pixel)
    record = {**made.record, "near": made.near, "far": float(made.depth.max())}
    members = {
        "rgb.png": samples.encode_png(made.picture),
        "disp.png": samples.encode_disparity(made.disparity()),
        "json": json.dumps(record, sort_keys=True).encode(),
    }
    return f"{index:08d}", members


def stream(p: Scenes, indices: Iterable[int], workers: int) -> Generator[tuple[str, dict[str, bytes]]]:
    """The samples of some indices in their order, made by worker processes of one thread each."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # what the workers inherit
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=end_with_parent)
    try:
        yield from pool.map(partial(sample, p), indices, chunksize=4)
    except BrokenProcessPool:
        raise UserError(
            "a rendering process was killed (out of memory?); run again, or with REMINT_WORKERS=1"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Of itself a worker would wait for ever for a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def rows(folder: Path, entries: list[shards.Entry], p: Scenes) -> list[dict]:
    """Manifest rows, from the samples as they were written."""
    made = []
    for place in entries:
        members = shards.read(folder, place)
        record = json.loads(members["json"])
        made.append(
            manifest.row(
                place,
                np.asarray(Image.open(BytesIO(members["rgb.png"]))),
                source="mitsuba",
                licence="CC0-1.0",
                label=record["label"],
                class_name=record["class"],
                split=manifest.split_of(place.key, p.held_out_share),
                depth_min=record["near"],
                depth_max=record["far"],
                valid_share=float((samples.decode_disparity(members["disp.png"]) > 0).mean()),
            )
        )
    return made


def info(p: Scenes) -> dict:
    """What holds for all samples."""
    return {
        "classes": list(NAMES),
        "size": p.size,
        "count": p.count,
        "depth": "disp.png is round(65535 * near / z), 16 bit; z is camera z of the first surface, 0 is sky; "
        "near (metres) is the smallest z of the sample and stands in its json",
        "renderer": f"mitsuba {renderer.load_mitsuba().__version__} {renderer.VARIANT}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for shards, manifest.parquet and info.json")
    out = parser.parse_args().out
    p = params.load(Scenes, "scenes")
    notes, workers = info(p), entry.workers()
    ranges = [range(start, min(start + p.per_shard, p.count)) for start in range(0, p.count, p.per_shard)]
    with partitions.opened(checkpoint_store.address("scenes", asdict(p), {}, ("data",)), len(ranges), out) as made:
        fill(made, ranges, p, workers)
        entries = place(made.files(), out)
        (out / "info.json").write_text(json.dumps(notes, indent=2) + "\n")
        manifest.write(rows(out, entries, p), out)  # last: a folder without it was not finished


def fill(made: partitions.Shards, ranges: list[range], p: Scenes, workers: int) -> None:
    """Render the shards that are missing, one stream of scenes through all of them."""
    indices = [index for shard in made.missing for index in ranges[shard]]
    with closing(stream(p, indices, workers)) as scenes:
        bar = iter(tqdm(scenes, total=len(indices), unit="scene", desc=f"scenes, {workers} workers", mininterval=2))
        for shard in made.missing:
            some = islice(bar, len(ranges[shard]))
            made.make(shard, partial(shards.write_one, samples=some))


def place(files: list[Path], out: Path) -> list[shards.Entry]:
    """Put the finished shards into the output folder, in place of what lay there before."""
    for stale in (*out.glob("scenes-*.tar"), out / "manifest.parquet", out / "info.json"):
        stale.unlink(missing_ok=True)
    placed = [file.replace(out / shards.name("scenes", index)) for index, file in enumerate(files)]
    return [one for file in placed for one in shards.entries(file)]


if __name__ == "__main__":
    entry.run(main, parts=True)
