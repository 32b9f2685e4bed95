"""The numbers of a model in two releases: which are better, and whether by more than noise."""

from __future__ import annotations

from collections.abc import Mapping

from flows.compare.values import Number, Says
from flows.gates.compare import NotComparable, Samples, pair
from flows.gates.judge import INTERVAL
from flows.production.bundle import Manifest
from models.metrics import METRICS, Metric, metric


def why_not(before: Manifest, after: Manifest) -> str:
    """Why the numbers of two bundles cannot be held against each other, "" if they can."""
    one, other = before.evaluation.context, after.evaluation.context
    if not one or not other:
        return "an evaluation has no context: not comparable"
    return "" if one == other else "evaluated on other data, or by other code: not comparable"


def numbers(
    before: Mapping[str, float],
    after: Mapping[str, float],
    comparable: bool,
    samples: tuple[Samples, Samples] | None = None,
) -> tuple[Number, ...]:
    """Every metric of either side, declared ones first; with `samples` (before, after), differences have intervals."""
    order = {name: place for place, name in enumerate(METRICS)}
    names = sorted({*before, *after}, key=lambda name: (name not in order, order.get(name, 0), name))
    return tuple(_number(name, before.get(name), after.get(name), comparable, samples) for name in names)


def _number(
    name: str, before: float | None, after: float | None, comparable: bool, samples: tuple[Samples, Samples] | None
) -> Number:
    declared = _declared(name)
    known = _interval(name, *samples) if comparable and samples and before != after else None
    low, high, count = known or (None, None, 0)
    says: Says = ""
    if comparable and declared and before is not None and after is not None:
        says = _says(declared, before, after, low, high)
    better, unit = (declared.better, declared.unit) if declared else ("", "")
    return Number(name, before, after, better, unit, name in METRICS, says, low, high, count, comparable)


def _interval(name: str, before: Samples, after: Samples) -> tuple[float, float, int] | None:
    """(low, high, samples) of the mean difference; None for a metric without values for each sample."""
    try:
        pairs = pair(after, before, name)
    except NotComparable:
        return None
    return pairs.bound((1 - INTERVAL) / 2), pairs.bound((1 + INTERVAL) / 2), pairs.samples


def _says(declared: Metric, before: float, after: float, low: float | None, high: float | None) -> Says:
    if before == after:
        return "same"
    if low is not None and high is not None:
        if low <= 0 <= high:
            return "within noise"
        return "better" if (low > 0) == (declared.better == "higher") else "worse"
    return "better" if declared.improves(after, before) else "worse"


def _declared(name: str) -> Metric | None:
    try:
        return metric(name)
    except KeyError:
        return None
