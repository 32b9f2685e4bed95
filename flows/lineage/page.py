"""Lineage as a self-contained HTML page in the dress of the run's report."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from data.params import UserError
from flows.lineage import picture, words
from flows.lineage.values import Lineage, problems
from models import report

HERE = Path(__file__).parent
DRESS = Path(report.__file__).with_name("style.css")


def render(lineage: Lineage) -> str:
    """The whole page; the same lineage gives the same text."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        short=words.short,
        around=words.around,
        extent=words.extent,
        verdict=words.verdict,
        standing=words.standing,
        setting=words.setting,
    )
    return environment.get_template("page.html.jinja").render(
        style=Markup(DRESS.read_text(encoding="utf-8")),
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


def write(path: Path, text: str) -> Path:
    """Write a page or a picture; UserError when that cannot be done."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path
