"""Metric tables: values with direction, unit and meaning, by model, by class, and against production."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models import metrics
from models.report import charts
from models.report.facts import Compared
from models.report.words import label

ARROWS = {"higher": ("↑", "higher is better"), "lower": ("↓", "lower is better")}


@dataclass(frozen=True)
class Row:
    """One metric with a value per column; an undeclared one has neither direction nor meaning."""

    label: str
    values: tuple[float | None, ...]
    unit: str
    arrow: str
    direction: str
    summary: str


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class ClassTable:
    """Metrics of single classes: a row per class, and a column per metric and model."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    note: str


def table(title: str, values: Mapping[str, Any], classes: Sequence[str]) -> Table:
    """The metrics of one evaluation over all classes, a column per model; in the order of their declarations."""
    kinds, parts = columns(values)
    names = {name for part in parts for name in part if not _of_class(name, classes)}
    order = {name: place for place, name in enumerate(metrics.METRICS)}
    ordered = sorted(names, key=lambda name: (order.get(name, len(order)), name))
    return Table(title, kinds, tuple(_row(name, parts) for name in ordered))


def class_table(title: str, values: Mapping[str, Any], classes: Sequence[str]) -> ClassTable | None:
    """The metrics of single classes ("delta1_glass"), if there are any."""
    kinds, parts = columns(values)
    found = {split for part in parts for name in part if (split := _of_class(name, classes))}
    stems = sorted({stem for stem, _ in found})
    if not stems:
        return None
    units = {stem: known.unit if (known := _declared(stem)) else "" for stem in stems}
    return ClassTable(
        title=f"{title}, by class" if title else "By class",
        columns=tuple(
            ", ".join([label(stem), *([units[stem]] if units[stem] else []), *([kind] if len(parts) > 1 else [])])
            for stem in stems
            for kind in kinds
        ),
        rows=tuple(
            (name, tuple(number(part.get(f"{stem}_{name}"), units[stem]) for stem in stems for part in parts))
            for name in classes
            if any((stem, name) in found for stem in stems)
        ),
        note="; ".join(f"{label(s)}: {ARROWS[m.better][1]}" for s in stems if (m := _declared(s))),
    )


def gain(row: Compared) -> dict[str, str]:
    """The change against production, what it is worth, and the metric's unit and direction."""
    metric = _declared(row.metric)
    if metric is None:
        return dict.fromkeys(("change", "verdict", "unit", "arrow", "direction"), "")
    arrow, direction = ARROWS[metric.better]
    known = {"unit": metric.unit, "arrow": arrow, "direction": direction}
    if row.production is None:
        return {"change": "", "verdict": "", **known}
    change = row.candidate - row.production
    verdict = {"better": "good", "worse": "bad"}.get(row.says, "soft")
    sign = "+" if change > 0 else "−" if change < 0 else "±"
    return {"change": sign + number(abs(change), metric.unit), "verdict": verdict, **known}


def number(value: float | None, unit: str = "") -> str:
    """A value as the page writes it: a dash for none, one decimal for a percentage."""
    if value is None:
        return "–"
    return f"{value:.1f}" if unit == "%" else charts.number(value)


def columns(values: Mapping[str, Any]) -> tuple[tuple[str, ...], list[Mapping[str, float]]]:
    """Names and values of the models that an evaluation compares, a teacher before its students."""
    names = sorted((name for name, part in values.items() if isinstance(part, Mapping)), key=lambda n: n != "teacher")
    return (tuple(names), [values[name] for name in names]) if names else (("value",), [values])


def _of_class(name: str, classes: Sequence[str]) -> tuple[str, str] | None:
    """("delta1", "glass") for "delta1_glass"; None for a metric over all classes."""
    stem, _, last = name.rpartition("_")
    return (stem, last) if stem and last in classes else None


def _row(name: str, parts: Sequence[Mapping[str, float]]) -> Row:
    metric = _declared(name)
    values = tuple(part.get(name) for part in parts)
    if metric is None:
        return Row(label(name), values, "", "", "", "")
    arrow, direction = ARROWS[metric.better]
    return Row(label(name), values, metric.unit, arrow, direction, metric.summary)


def _declared(name: str) -> metrics.Metric | None:
    try:
        return metrics.metric(name)
    except KeyError:
        return None
