"""All of the page as HTML text: the template, the style sheet and the values that they show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from data.core.params import UserError
from models.report import charts, graph, sections, tables, words
from models.report.collect import Material, attributions
from models.report.facts import RunFacts

HERE = Path(__file__).parent


def render(material: Material, run: RunFacts | None = None) -> str:
    """The whole page as HTML text; with `run`, also what a run of the flow knows (verdicts, stages, versions).

    The same arguments give the same text. All texts from files are escaped.
    """
    shown = [(family, sections.section_of(family, material)) for family in words.FAMILIES]
    return _environment().get_template("page.html.jinja").render(
        style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
        run=run,
        facts=_facts(material),
        cards=[sections.card_of(family, section, material.stages) for family, section in shown],
        scenes=material.scenes,
        validation=sections.validation_of(material.validation),
        photos=material.photos,
        quarantine=material.quarantine,
        attributions=attributions(material.attribution),
        data_pictures=sections.pictures_of(material.stages["validate"]) if "validate" in material.stages else [],
        sections=[section for _, section in shown],
        graphs=_graphs(run) if run else None,
        files=[file for stage in material.stages.values() for file in stage.files],
        params=yaml.safe_dump(dict(material.params), sort_keys=False, allow_unicode=True) if material.params else "",
    )  # fmt: skip


def write(page: str, folder: Path) -> Path:
    """Write the page as `folder/report.html`; UserError when that cannot be done."""
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; free space or permissions") from None
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=tables.number,
        written=lambda value: value if isinstance(value, str) else tables.number(value),
        gain=tables.gain,
        label=words.label,
        draw=charts.draw,
        size=_size,
        duration=lambda seconds: f"{int(seconds) // 60} min {int(seconds) % 60} s",
    )
    return environment


def _facts(material: Material) -> list[dict[str, Any]]:
    """The few parameters that tell a reader the scale of what follows."""
    wanted = (
        ("scenes.count", "rendered scenes"),
        ("scenes.size", "pixels a side"),
        ("warmup.latents", "tokens an image"),
        ("seed", "is the seed"),
    )
    facts = []
    for path, name in wanted:
        value: Any = material.params
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            facts.append({"value": f"{value:,}" if isinstance(value, int) else value, "name": name})
    return facts


def _graphs(run: RunFacts) -> dict[str, Markup]:
    """The graph from left to right for a wide screen and from top to bottom for a narrow one."""
    actions = {row.name: row.action for row in run.stages}
    return {"across": graph.draw(run.graph, True, actions), "down": graph.draw(run.graph, False, actions)}


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
