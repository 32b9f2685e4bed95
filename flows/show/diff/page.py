"""A comparison of two releases as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.show import page
from flows.show.diff import code, text
from flows.show.diff.pictures import Pair
from flows.show.diff.values import Comparison
from models.report.charts import number
from models.report.words import label

FILTERS: dict[str, Callable[..., Any]] = {
    "title": text.title,
    "interval": text.interval,
    "signed": text.signed,
    "about": text.about,
    "plain": code.plain,
    "number": lambda value: "–" if value is None else number(value),
    "label": label,
}


def render(found: Comparison, pictures: Sequence[Pair], notes: Sequence[str] = ()) -> str:
    """The whole page; `notes` say why pictures are missing. The same values give the same text."""
    return page.render(Path(__file__).parent, FILTERS, lines=text.lines, found=found, pictures=pictures, notes=notes)
