"""Near-duplicates across the split: how far each held-out picture is from the nearest training picture."""

from __future__ import annotations

import numpy as np
import pandas as pd

BITS = 64  # of a difference hash, and the distance of a picture that has nothing to be compared with
ROWS_AT_ONCE = 256  # of held-out pictures: the memory used is this times 8 bytes times the training pictures


def distances(manifest: pd.DataFrame) -> pd.DataFrame:
    """Columns `duplicate_distance` (differing bits of the difference hash, 0..64) and `nearest_key`, row by row.

    Only held-out rows are compared, with all training rows: training rows have 64 and "".
    Work grows with the product of both counts, 1e9 comparisons take a few seconds.
    """
    sound = manifest["dhash"].astype(str).str.fullmatch("[0-9a-f]{16}").to_numpy(dtype=bool)  # others fail elsewhere
    hashes = np.array([int(t, 16) if ok else 0 for t, ok in zip(manifest["dhash"], sound, strict=True)], np.uint64)
    train = np.flatnonzero(sound & (manifest["split"] == "train").to_numpy(dtype=bool))
    val = np.flatnonzero(sound & (manifest["split"] == "val").to_numpy(dtype=bool))
    distance = np.full(len(manifest), BITS, dtype=np.int64)
    nearest = np.full(len(manifest), "", dtype=object)
    keys = manifest["key"].to_numpy(dtype=object)
    for start in range(0, len(val) if len(train) else 0, ROWS_AT_ONCE):
        rows = val[start : start + ROWS_AT_ONCE]
        differing = np.bitwise_count(hashes[rows, None] ^ hashes[None, train])  # (rows, train)
        best = differing.argmin(axis=1)
        distance[rows] = differing[np.arange(len(rows)), best]
        nearest[rows] = keys[train[best]]
    return pd.DataFrame({"duplicate_distance": distance, "nearest_key": nearest}, index=manifest.index)
