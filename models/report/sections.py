"""What goes into which section of the page: pictures, tables and curves of each family, and the validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models import metrics
from models.report import charts
from models.report.collect import Material, Picture, Stage, crop
from models.report.tables import ClassTable, Table, class_table, columns, table
from models.report.words import ASIDE, Family, caption, stage_title


@dataclass(frozen=True)
class Shown:
    picture: Picture
    caption: str
    alt: str
    small: bool  # on the way to what a section is about, or beside it


@dataclass(frozen=True)
class Training:
    title: str
    charts: tuple[charts.Chart, ...]
    pictures: tuple[Shown, ...]


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    lead: str
    missing: str
    pictures: tuple[Shown, ...]
    tables: tuple[Table, ...]
    class_tables: tuple[ClassTable, ...]
    training: tuple[Training, ...]


@dataclass(frozen=True)
class Validation:
    says: str
    facts: tuple[tuple[str, str], ...]
    suites: tuple[tuple[str, int, int], ...]  # name, expectations that hold, all
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    section: str
    title: str
    picture: Picture | None
    alt: str
    value: float | None
    unit: str
    says: str


def section_of(family: Family, material: Material) -> Section:
    stages = material.stages
    evaluations = [stages[f"evaluate@{name}"] for name in family.evaluation if f"evaluate@{name}" in stages]
    trained = [stage for base in family.training for name, stage in stages.items() if name.split("@")[0] == base]
    several = len(evaluations) > 1
    pictures = [shown for stage in evaluations for shown in pictures_of(stage)]
    classes = tuple(scene.class_name for scene in material.scenes)
    titled = [(stage.name.split("@")[-1] if several else "", stage.metrics) for stage in evaluations if stage.metrics]
    return Section(
        id=family.id,
        title=family.title,
        lead=family.lead,
        missing="the stage " + " or ".join(f"evaluate@{name}" for name in family.evaluation) + " has left none",
        pictures=tuple(sorted(pictures, key=lambda shown: shown.picture.name != family.shows)),
        tables=tuple(table(title, values, classes) for title, values in titled),
        class_tables=tuple(t for title, values in titled if (t := class_table(title, values, classes))),
        training=tuple(
            Training(stage_title(stage.name), stage.charts, tuple(pictures_of(stage)))
            for stage in trained
            if stage.charts or stage.pictures
        ),
    )


def pictures_of(stage: Stage) -> list[Shown]:
    """A stage's pictures with caption and alternative text."""
    shown = []
    for picture in stage.pictures:
        line = caption(stage.name, picture.name)
        small = picture.name in ASIDE or not stage.name.startswith(("evaluate@", "validate"))
        shown.append(Shown(picture, line, f"{line} From the stage {stage.name}.", small))
    return shown


def card_of(family: Family, section: Section, stages: Mapping[str, Stage]) -> Card:
    """The family's card at the head of the page; the last model that an evaluation compares is the one that ships."""
    found = None
    for name in family.evaluation:
        for part in columns(stages[f"evaluate@{name}"].metrics)[1] if f"evaluate@{name}" in stages else []:
            found = part.get(family.headline, found)
    picture = next((p for p in section.pictures if p.picture.name == family.shows), None)
    return Card(
        section=family.id,
        title=family.title,
        picture=crop(picture.picture) if picture else None,
        alt=f"a detail of: {picture.caption}" if picture else "",
        value=found,
        unit=metrics.METRICS[family.headline].unit,
        says=family.says,
    )


def validation_of(report: Mapping[str, Any]) -> Validation | None:
    """What validate's report.json says, in a sentence, its facts, a row per suite, and what did not hold."""
    if not report:
        return None
    results = [(suite["suite"], result) for suite in report["suites"] for result in suite["results"]]
    failed = [(name, result) for name, result in results if not result["success"]]
    held = len(results) - len(failed)
    return Validation(
        says=f"{held} of {len(results)} expectations hold"
        + (f", with {report['warnings']} warning{'s' * (report['warnings'] != 1)}." if report["warnings"] else ".")
        + ("" if report["success"] else " A critical one failed, so nothing was trained on this data."),
        facts=tuple(report.get("facts", {}).items()),
        suites=tuple(
            (suite["suite"], sum(result["success"] for result in suite["results"]), len(suite["results"]))
            for suite in report["suites"]
        ),
        failed=tuple(
            f"{name}: {result['expectation']} on {result['column']}"
            + (f", {result['unexpected']} rows" if result["unexpected"] else "")
            + (f" ({result['description']})" if result["description"] else "")
            for name, result in failed
        ),
    )
