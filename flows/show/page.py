"""Self-contained HTML pages in the dress of the run's report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from data.core.params import UserError
from models import report

DRESS = Path(report.__file__).with_name("style.css")


def render(folder: Path, filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
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


def write(path: Path, text: str) -> Path:
    """Write a page or a picture; UserError when that cannot be done."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    return path
