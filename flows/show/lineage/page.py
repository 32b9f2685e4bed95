"""Lineage as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.show import page
from flows.show.lineage import picture, words
from flows.show.lineage.values import Lineage, problems

FILTERS: dict[str, Callable[..., Any]] = {
    "short": words.short,
    "around": words.around,
    "extent": words.extent,
    "price": words.price,
    "verdict": words.verdict,
    "standing": words.standing,
    "setting": words.setting,
}


def render(lineage: Lineage) -> str:
    """The whole page; the same lineage gives the same text."""
    return page.render(
        Path(__file__).parent,
        FILTERS,
        top=lineage,
        models=every(lineage),
        pictures=picture.both([lineage]),
        problems=problems(lineage),
    )


def every(lineage: Lineage) -> list[Lineage]:
    """A model and, below it, its parents and theirs, each once."""
    found = {lineage.name: lineage}
    for parent in lineage.parents:
        if isinstance(parent, Lineage):
            found |= {one.name: one for one in every(parent) if one.name not in found}
    return list(found.values())
