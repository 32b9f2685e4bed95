"""One picture of a set: from its original to the members of a sample, a function of its bytes and the parameters.

The largest square is cut out, in the middle or at a seeded place along the longer side, and resampled with Lanczos to
the set's size; smaller pictures are enlarged. What the manifest says of a picture is measured here, where there are
many processes, and stands in the sample's json.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
from PIL import Image

from data.core import digests, manifest, samples
from data.core.params import UserError
from data.photos import decode
from data.pictures.given import Given
from data.pictures.params import Set


def key(sha256: str) -> str:
    """The name of a picture's sample: 64 bits of its digest."""
    return sha256[:16]


def sample(p: Set, picture: Given) -> dict[str, bytes] | str:
    """The members of a picture's sample, or why it cannot be used. UserError if it is not the one that was listed."""
    try:
        same = digests.sha256(picture.path) == picture.sha256
    except OSError:
        same = False
    if not same:
        raise UserError(
            f"{picture.path} is not as it was listed; put it back, or list the set again with remint data add"
        )
    try:
        original = decode.load(picture.path, p.max_pixels)
    except decode.Unusable as error:
        return str(error)
    box = square(*original.size, p, picture.sha256)
    pixels = np.asarray(original.resize((p.size, p.size), Image.Resampling.LANCZOS, box, reducing_gap=3))
    about = {"original": picture.sha256, "width": original.width, "height": original.height, "box": box}
    record = json.dumps(about | manifest.statistics(pixels), sort_keys=True)
    return {"rgb.png": samples.encode_png(pixels), "json": record.encode()}


def square(width: int, height: int, p: Set, sha256: str) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is cut out of a picture."""
    side, room = min(width, height), abs(width - height)
    at = room // 2
    if p.crop == "random":
        draw = int.from_bytes(hashlib.sha256(f"{p.seed} {sha256}".encode()).digest()[:8], "big")
        at = draw * (room + 1) >> 64
    left, top = (at, 0) if width > height else (0, at)
    return left, top, left + side, top + side
