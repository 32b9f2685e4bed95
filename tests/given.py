"""Small pictures in every form that a set can be given in, for tests."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from data.pictures import listing, places
from data.pictures.params import Set

CLASSES = ("bird", "cat", "dog")
Pictures = list[tuple[str, str, bytes]]  # class, name, bytes


def picture(seed: int, width: int = 48, height: int = 40, kind: str = "PNG") -> bytes:
    """A picture that resembles no other: a coarse random pattern, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST).save(buffer, kind)
    return buffer.getvalue()


def pictures(count: int = 60) -> Pictures:
    """As many pictures of three classes, wide and high ones, PNG and JPEG."""
    sizes = ((48, 40), (40, 64), (32, 32), (20, 24))
    return [
        (CLASSES[i % 3], f"{i:03d}.{'jpg' if i % 2 else 'png'}", picture(i, *sizes[i % 4], "JPEG" if i % 2 else "PNG"))
        for i in range(count)
    ]


def tree(folder: Path, given: Pictures) -> Path:
    for name, file, data in given:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / file).write_bytes(data)
    return folder


def tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return path


def tars(folder: Path, given: Pictures) -> Path:
    """Two tars with `cls` and `json` labels by name."""
    for half in (0, 1):
        members = []
        for name, file, data in given[half::2]:
            key = file.partition(".")[0]
            said = (f"{key}.cls", name.encode()) if half else (f"{key}.json", json.dumps({"label": name}).encode())
            members += [(file, data), said]
        tar(folder / f"part-{half}.tar", members)
    return folder


def parquet(folder: Path, given: Pictures, names: tuple[str, ...] = CLASSES) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"image": {"bytes": data, "path": file}, "label": names.index(name)} for name, file, data in given]
    info = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, folder / "train-00000-of-00001.parquet")
    return folder


def table(folder: Path, given: Pictures) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "all.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label"])
        for name, picture, data in given:
            (folder / picture).write_bytes(data)
            writer.writerow([picture, name])
    return folder / "all.csv"


def parameters(source: Path | str, **changed: object) -> Set:
    values: dict = {
        "source": str(source),
        "size": 32,
        "crop": "centre",
        "licence": "CC0-1.0",
        "held_out_share": 0.2,
        "per_shard": 16,
        "max_bad_share": 0.2,
        "max_pixels": 10**6,
        "seed": 3,
    }
    return Set(**(values | changed))


def listed(source: Path | str, name: str = "birds") -> None:
    """Write the list of a set's files, as `remint data add` does, into the working directory."""
    place, single = places.open(str(source), "source")
    file = listing.path(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(listing.text(listing.of(place, single, "source")))
