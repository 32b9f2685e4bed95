"""A contact sheet: the first pictures of every class, a class per row, as one PNG."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from data.core import shards

FILE = "sheet.png"
CELL, GAP, NAMED = 96, 4, 110  # pixels: a picture, between two, room for a class's name
ACROSS, ROWS = 8, 32  # pictures of a class, and classes at most
GROUND, INK = (255, 255, 255), (40, 40, 40)


def draw(folder: Path, manifest: list[dict[str, Any]]) -> Image.Image:
    """The sheet of a folder of pictures with these rows of the manifest; those without a class come last."""
    rows = _rows(manifest)
    page = Image.new("RGB", (NAMED + ACROSS * (CELL + GAP), len(rows) * (CELL + GAP) + GAP), GROUND)
    pen = ImageDraw.Draw(page)
    for number, (name, some) in enumerate(rows):
        top = GAP + number * (CELL + GAP)
        pen.multiline_text((4, top + 4), _lines(name), fill=INK, font=ImageFont.load_default(11))
        for column, row in enumerate(some):
            page.paste(_small(folder, row), (NAMED + column * (CELL + GAP), top))
    return page


def _rows(every: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The first pictures of each class with its name."""
    found: dict[tuple[bool, int], list[dict[str, Any]]] = {}
    for row in every:
        some = found.setdefault((row["label"] < 0, row["label"]), [])
        if len(some) < ACROSS:
            some.append(row)
    return [(some[0]["class_name"] or "no class", some) for _, some in sorted(found.items())[:ROWS]]


def _small(folder: Path, row: dict[str, Any]) -> Image.Image:
    place = shards.Entry(row["key"], row["shard"], row["offset"], row["bytes"], row["sha256"])
    picture = Image.open(BytesIO(shards.read(folder, place)["rgb.png"]))
    return picture.convert("RGB").resize((CELL, CELL), Image.Resampling.BOX)


def _lines(name: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in name[:48])
    return "\n".join(shown[i : i + 16] for i in range(0, len(shown), 16))
