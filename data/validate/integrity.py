"""Do the shards still hold what the manifest says?"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
from tqdm import tqdm


def digests(folder: Path, manifest: pd.DataFrame) -> list[str]:
    """SHA-256 of each sample's bytes as found on disk, "" where there are none; reads each shard once."""
    found = {}
    placed = manifest.dropna(subset=["shard", "offset", "bytes"])
    with tqdm(total=len(placed), desc=f"validate: reading {folder.name}", unit="sample") as bar:
        for shard, rows in placed.groupby("shard", sort=True):
            try:
                with (folder / str(shard)).open("rb") as file:
                    for index, offset, size in zip(rows.index, rows["offset"], rows["bytes"], strict=True):
                        file.seek(max(int(offset), 0))
                        found[index] = hashlib.sha256(file.read(max(int(size), 0))).hexdigest()
                        bar.update()
            except FileNotFoundError:
                bar.update(len(rows))
    return [found.get(index, "") for index in manifest.index]
