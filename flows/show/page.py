"""Self-contained HTML pages in the dress of the run's report: a model's lineage, and a comparison of two releases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from data.core.params import UserError
from flows.show.diff import comparison
from flows.show.diff.commits import Pair
from flows.show.diff.comparison import Comparison
from flows.show.lineage import picture, words
from flows.show.lineage.values import Lineage, every, problems
from models import report
from models.report.charts import number
from models.report.words import label

HERE = Path(__file__).parent
DRESS = Path(report.__file__).with_name("style.css")
Filter = Callable[..., str]
OF_LINEAGE: list[Filter] = [
    words.short,
    words.around,
    words.extent,
    words.price,
    words.verdict,
    words.standing,
    words.setting,
]
OF_COMPARISON: list[Filter] = [
    comparison.title,
    comparison.interval,
    comparison.signed,
    comparison.about,
    comparison.plain,
    label,
]


def lineage(found: Lineage) -> str:
    """The whole page; the same lineage gives the same text."""
    filters = {one.__name__: one for one in OF_LINEAGE}
    values = {"top": found, "models": every(found), "pictures": picture.both([found]), "problems": problems(found)}
    return _render(HERE / "lineage", filters, **values)


def compared(found: Comparison, pictures: Sequence[Pair], notes: Sequence[str] = ()) -> str:
    """The whole page; `notes` say why pictures are missing. The same values give the same text."""
    filters = {one.__name__: one for one in OF_COMPARISON}
    filters["number"] = lambda value: "–" if value is None else number(value)
    values = {"lines": comparison.lines, "found": found, "pictures": pictures, "notes": notes}
    return _render(HERE / "diff", filters, **values)


def write(path: Path, text: str) -> Path:
    """Write a page or a picture; UserError when that cannot be done."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; name another file") from None
    return path


def _render(folder: Path, filters: Mapping[str, Filter], **values: Any) -> str:
    """`page.html.jinja` of a folder with its values, and the style sheet as `style`."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    style = Markup(DRESS.read_text(encoding="utf-8"))
    return environment.get_template("page.html.jinja").render(style=style, **values)
