"""The manifest: one row per sample, `manifest.parquet` beside the shards."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.core.params import UserError
from data.core.shards import Entry

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source", pa.string()),  # who or what made it: "mitsuba", or the photograph's file name
        ("licence", pa.string()),  # SPDX identifier where there is one
        ("label", pa.int32()),  # class index, -1 = none
        ("class_name", pa.string()),
        ("split", pa.string()),  # "train" or "val" (held out)
        ("shard", pa.string()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("brightness", pa.float32()),  # mean luma, 0..1
        ("contrast", pa.float32()),  # standard deviation of luma, 0..0.5
        ("depth_min", pa.float32()),  # nearest and farthest valid z in scene units; null without depth
        ("depth_max", pa.float32()),
        ("valid_share", pa.float32()),  # share of pixels with a depth (not sky); null without depth
        ("dhash", pa.string()),  # 64-bit difference hash as 16 hex digits: near-duplicates differ in few bits
    ]
)

LUMA = (299, 587, 114)  # of red, green and blue, in thousandths
WHITE = 255 * sum(LUMA)


def row(entry: Entry, image: np.ndarray, **columns: Any) -> dict[str, Any]:
    """A manifest row from where the sample lies, its picture (uint8 (H, W, 3)) and what only the caller knows."""
    return {**place(entry), **picture(image), **columns}


def place(entry: Entry) -> dict[str, Any]:
    """The columns that say where a sample lies."""
    return {
        "key": entry.key,
        "shard": entry.shard,
        "offset": entry.offset,
        "bytes": entry.size,
        "sha256": entry.sha256,
    }


def picture(image: np.ndarray) -> dict[str, Any]:
    """The columns that describe a uint8 (H, W, 3) picture."""
    return {"width": image.shape[1], "height": image.shape[0], **statistics(image)}


def split_of(key: str, held_out_share: float) -> str:
    """ "val" for about `held_out_share` of all keys, by a hash of the key alone: adding samples moves none."""
    draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "val" if draw < held_out_share else "train"


def statistics(image: np.ndarray) -> dict[str, Any]:
    """Brightness, contrast and difference hash of a uint8 (H, W, 3) picture."""
    grey = luma(image)
    return {
        "brightness": float(grey.mean()) / WHITE,
        "contrast": float(grey.std()) / WHITE,
        "dhash": difference_hash(grey),
    }


def luma(images: np.ndarray) -> np.ndarray:
    """Luma of uint8 pictures (..., H, W, 3), 0..WHITE: in whole numbers, so that equal cells have one mean."""
    return (images * np.array(LUMA)).sum(axis=-1)


def difference_hash(grey: np.ndarray) -> str:
    """64-bit dHash of a (H, W) picture: is each cell of a 9 x 8 thumbnail brighter than its left neighbour?"""
    rows = np.array_split(np.arange(grey.shape[0]), 8)
    columns = np.array_split(np.arange(grey.shape[1]), 9)
    small = np.array([[grey[np.ix_(r, c)].mean() for c in columns] for r in rows])  # (8, 9)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()


def write(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Write the rows as `folder/manifest.parquet`; same rows, same bytes."""
    path = folder / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")
    return path


def read(folder: Path) -> pa.Table:
    """The manifest of a data folder; UserError when it is missing, unreadable or of another schema."""
    path = Path(folder) / "manifest.parquet"
    if not path.exists():
        raise UserError(f"{path} does not exist; run the stage that makes {folder} first (dvc repro)")
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{path} cannot be read: {str(error).splitlines()[0]}; run the stage that makes it again"
        ) from None
    missing = [name for name in SCHEMA.names if name not in table.column_names]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}; make it again with the stage of today")
    return table
