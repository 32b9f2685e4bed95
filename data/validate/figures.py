"""One picture of the data: histograms of brightness, contrast and valid depth, and scenes per class."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 300, 150, 34  # of one panel, in pixels
COLOURS = {"scenes": (66, 103, 172), "photos": (221, 132, 82)}
INK, PAPER = (60, 60, 60), (255, 255, 255)
BINS = 30


def statistics(scenes: pd.DataFrame, photos: pd.DataFrame) -> Image.Image:
    """The four panels side by side; heights are shares, each data set scaled to its own tallest bar."""
    panels = [
        _histogram("brightness", {"scenes": scenes["brightness"], "photos": photos["brightness"]}, 1.0),
        _histogram("contrast", {"scenes": scenes["contrast"], "photos": photos["contrast"]}, 0.5),
        _histogram("share of pixels with depth", {"scenes": scenes["valid_share"]}, 1.0),
        _bars("scenes per class", scenes["class_name"].value_counts().sort_index()),
    ]
    sheet = Image.new("RGB", (len(panels) * (WIDTH + MARGIN) + MARGIN, HEIGHT + 2 * MARGIN + 40), PAPER)
    for i, panel in enumerate(panels):
        sheet.paste(panel, (MARGIN // 2 + i * (WIDTH + MARGIN), 0))
    return sheet


def _frame(title: str) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    panel = Image.new("RGB", (WIDTH + MARGIN, HEIGHT + 2 * MARGIN + 40), PAPER)
    draw = ImageDraw.Draw(panel)
    draw.text((MARGIN // 2, 8), title, fill=INK, font=_font(15))
    draw.line([(MARGIN // 2, MARGIN + HEIGHT), (MARGIN // 2 + WIDTH, MARGIN + HEIGHT)], fill=INK)
    return panel, draw


def _histogram(title: str, columns: dict[str, pd.Series], largest: float) -> Image.Image:
    panel, draw = _frame(title)
    left, floor = MARGIN // 2, MARGIN + HEIGHT
    step = WIDTH / BINS
    for i, (name, values) in enumerate(columns.items()):
        counts = np.histogram(values.dropna(), bins=BINS, range=(0, largest))[0]
        tops = floor - np.round(counts / max(counts.max(), 1) * (HEIGHT - 10)).astype(int)
        corners = [(round(left + (b + side) * step), int(top)) for b, top in enumerate(tops) for side in (0, 1)]
        draw.line([(left, floor), *corners, (left + WIDTH, floor)], fill=COLOURS[name], width=2)
        draw.text((left + i * 80, floor + 22), name, fill=COLOURS[name], font=_font(13))
    for share in (0.0, 0.5, 1.0):
        draw.text((left + share * WIDTH, floor + 4), f"{share * largest:g}", fill=INK, font=_font(12), anchor="ma")
    return panel


def _bars(title: str, counts: pd.Series) -> Image.Image:
    panel, draw = _frame(title)
    left, floor = MARGIN // 2, MARGIN + HEIGHT
    step = WIDTH / max(len(counts), 1)
    for i, (name, count) in enumerate(counts.items()):
        top = floor - round(count / max(counts.max(), 1) * (HEIGHT - 20))
        draw.rectangle(
            [round(left + i * step) + 2, top, round(left + (i + 1) * step) - 2, floor], fill=COLOURS["scenes"]
        )
        draw.text((left + (i + 0.5) * step, top - 2), str(count), fill=INK, font=_font(11), anchor="mb")
        label = Image.new("L", (70, 16))
        ImageDraw.Draw(label).text((68, 2), str(name), fill=255, font=_font(11), anchor="ra")
        turned = label.rotate(60, expand=True)
        panel.paste(INK, (round(left + (i + 0.5) * step) - turned.width + 12, floor + 3), mask=turned)
    return panel


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
