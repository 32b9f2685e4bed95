"""A comparison of two releases as a self-contained HTML page in the dress of the run's report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.compare import code, text
from flows.compare.pictures import Pair
from flows.compare.values import Comparison
from flows.lineage.page import DRESS
from models.report.charts import number
from models.report.words import label

HERE = Path(__file__).parent


def render(found: Comparison, pictures: Sequence[Pair], notes: Sequence[str] = ()) -> str:
    """The whole page; `notes` say why pictures are missing. The same values give the same text."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        title=text.title,
        interval=text.interval,
        signed=text.signed,
        about=text.about,
        plain=code.plain,
        number=lambda value: "–" if value is None else number(value),
        label=label,
    )
    environment.globals["lines"] = text.lines
    return environment.get_template("page.html.jinja").render(
        style=Markup(DRESS.read_text(encoding="utf-8")), found=found, pictures=pictures, notes=notes
    )
