"""Samples: a map-style view of a data folder (shards and manifest), decoded on demand."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.core import manifest, shards
from data.core.params import UserError


class Samples:
    """The samples of one split ("train", "val", or None for all) of a folder, in the manifest's order.

    `image(i)` is uint8 (H, W, 3); `disparity(i)` is float32 (H, W) in [0, 1], proportional to 1/z with 0 for
    sky (no surface). `labels` is int64 (N,), -1 without a class, which only data without classes may have. A corrupt
    sample raises UserError when read.
    """

    def __init__(self, folder: str | Path, split: str | None = None) -> None:
        self.folder = Path(folder)
        rows = manifest.read(self.folder).to_pylist()
        self.rows = [r for r in rows if split is None or r["split"] == split]
        if not self.rows:
            raise UserError(
                f"{self.folder}/manifest.parquet has no samples in split '{split}'; raise held_out_share or count"
            )
        self.keys = [r["key"] for r in self.rows]
        self.labels = np.array([r["label"] for r in self.rows], dtype=np.int64)
        self.class_names = _classes(self.folder / "info.json")
        count = len(self.class_names)
        wrong = np.flatnonzero((self.labels < 0) | (self.labels >= count))[:count]
        if len(wrong):
            raise UserError(
                f"{self.folder}: sample {self.keys[wrong[0]]} has label {self.labels[wrong[0]]}, but the classes of "
                f"info.json are 0 to {count - 1}; run the stage that writes this folder again"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def members(self, i: int) -> dict[str, bytes]:
        """The i-th sample's stored files by suffix, checked against the manifest's digest."""
        r = self.rows[i]
        return shards.read(self.folder, shards.Entry(r["key"], r["shard"], r["offset"], r["bytes"], r["sha256"]))

    def member(self, i: int, name: str, what: str) -> bytes:
        found = self.members(i)
        if name not in found:
            raise UserError(f"{self.folder}: sample {self.keys[i]} has no {what} ({name}); use data that has")
        return found[name]

    def image(self, i: int) -> np.ndarray:
        return np.asarray(Image.open(BytesIO(self.member(i, "rgb.png", "picture"))).convert("RGB"))

    def disparity(self, i: int) -> np.ndarray:
        return decode_disparity(self.member(i, "disp.png", "depth"))

    def images(self) -> np.ndarray:
        """All pictures, uint8 (N, H, W, 3); they must have one size."""
        return np.stack([self.image(i) for i in range(len(self))])

    def disparities(self) -> np.ndarray:
        """All disparities, float32 (N, H, W)."""
        return np.stack([self.disparity(i) for i in range(len(self))])


def _classes(path: Path) -> list[str]:
    """The classes that info.json names, if it does."""
    try:
        values: Any = json.loads(path.read_text()) if path.exists() else {}
        return [str(name) for name in values.get("classes", [])]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); run the stage that writes this folder again") from None


def encode_png(array: np.ndarray) -> bytes:
    """uint8 (H, W, 3) or uint16 (H, W) as PNG bytes, the same bytes each time."""
    buffer = BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def encode_disparity(disparity: np.ndarray) -> bytes:
    """float (H, W) in [0, 1] as a 16-bit grey PNG."""
    return encode_png(np.round(np.clip(disparity, 0, 1) * 65535).astype(np.uint16))


def decode_disparity(png: bytes) -> np.ndarray:
    """A 16-bit grey PNG as float32 (H, W) in [0, 1]."""
    return np.asarray(Image.open(BytesIO(png)), dtype=np.float32) / 65535
