"""Pseudo-labels on disk: 16-bit PNGs in tar shards, found again by data set and key."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data.core import shards
from data.core.params import UserError
from data.core.samples import decode_disparity, encode_disparity

INDEX = "index.parquet"


def unit(disparity: np.ndarray) -> np.ndarray:
    """Disparity (H, W) stretched to [0, 1]: scale and shift carry no meaning, so 16 bits lose nothing. Flat gives 0."""
    low, high = float(disparity.min()), float(disparity.max())
    return (disparity - low) / (high - low) if high > low else np.zeros_like(disparity)


def pack(keys: Iterable[str], disparities: Iterable[np.ndarray]) -> bytes:
    """A shard of labels."""
    packed = BytesIO()
    samples = ((k, {"disp.png": encode_disparity(unit(d))}) for k, d in zip(keys, disparities, strict=True))
    shards.write_to(packed, samples)
    return packed.getvalue()


def rows(shard: Path, pool: str) -> list[dict]:
    """What the index says of a written shard."""
    return [
        {"pool": pool, "key": e.key, "shard": e.shard, "offset": e.offset, "bytes": e.size, "sha256": e.sha256}
        for e in shards.entries(shard)
    ]


def write_index(folder: Path, rows: list[dict]) -> None:
    """Write where every label lies."""
    pq.write_table(pa.Table.from_pylist(rows), folder / INDEX, compression="zstd")


def read(folder: Path, pool: str, keys: list[str]) -> np.ndarray:
    """The labels of `keys` in one pool, float32 (N, H, W) in [0, 1]; UserError when one is missing or corrupt."""
    if not (folder / INDEX).exists():
        raise UserError(f"{folder / INDEX} does not exist; run the stage pseudo-labels first (dvc repro)")
    rows = {r["key"]: r for r in pq.read_table(folder / INDEX).to_pylist() if r["pool"] == pool}
    missing = [key for key in keys if key not in rows]
    if missing:
        raise UserError(
            f"{folder} has no label for {pool} {missing[0]} and {len(missing) - 1} more; run pseudo-labels again"
        )
    entries = [shards.Entry(k, r["shard"], r["offset"], r["bytes"], r["sha256"]) for k in keys for r in [rows[k]]]
    return np.stack([decode_disparity(shards.read(folder, entry)["disp.png"]) for entry in entries])
