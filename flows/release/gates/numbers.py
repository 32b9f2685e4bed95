"""The numbers of a model beside those it is held against: which are better, and whether by more than noise.

One rule for the table that ends a run, its report and `remint diff`, and the gates' own: where both were measured on
the same samples, the 95 % interval of the paired difference decides; where a metric has no values per sample, the
policy's margin stands for its noise; where there is neither, nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flows.release.gates.compare import INTERVAL, NotComparable, Samples, pair
from models.metrics import METRICS, Metric, metric

Says = Literal["better", "worse", "within noise", "within margin", "same", ""]


@dataclass(frozen=True)
class Number:
    """One metric of a model before and after; the interval is of (after - before) on the same samples, at 95 %."""

    metric: str
    before: float | None
    after: float | None
    better: str  # "higher", "lower"; "" for a metric that is not declared
    unit: str
    whole: bool  # over all classes, not one
    says: Says  # "" where the two cannot be compared, or their noise is not known
    low: float | None = None
    high: float | None = None
    samples: int = 0
    comparable: bool = True  # False: measured on other data, or by other code; then there is no difference

    @property
    def difference(self) -> float | None:
        if self.before is None or self.after is None or not self.comparable:
            return None
        return self.after - self.before


def numbers(
    before: Mapping[str, float],
    after: Mapping[str, float],
    comparable: bool = True,
    samples: tuple[Samples, Samples] | None = None,
    margins: Mapping[str, float] | None = None,
) -> tuple[Number, ...]:
    """Every metric of either side, declared ones first.

    samples: (before, after), with which differences have intervals. margins: the policy's, by metric.
    """
    order = {name: place for place, name in enumerate(METRICS)}
    names = sorted({*before, *after}, key=lambda name: (name not in order, order.get(name, 0), name))
    return tuple(
        _number(name, before.get(name), after.get(name), comparable, samples, (margins or {}).get(name))
        for name in names
    )


def _number(
    name: str,
    before: float | None,
    after: float | None,
    comparable: bool,
    samples: tuple[Samples, Samples] | None,
    margin: float | None,
) -> Number:
    declared = _declared(name)
    known = _interval(name, *samples) if comparable and samples and before != after else None
    low, high, count = known or (None, None, 0)
    says: Says = ""
    if comparable and declared and before is not None and after is not None:
        says = _says(declared, before, after, low, high, margin)
    better, unit = (declared.better, declared.unit) if declared else ("", "")
    return Number(name, before, after, better, unit, name in METRICS, says, low, high, count, comparable)


def _interval(name: str, before: Samples, after: Samples) -> tuple[float, float, int] | None:
    """(low, high, samples) of the mean difference; None for a metric without values for each sample."""
    try:
        pairs = pair(after, before, name)
    except NotComparable:
        return None
    return pairs.bound((1 - INTERVAL) / 2), pairs.bound((1 + INTERVAL) / 2), pairs.samples


def _says(
    declared: Metric, before: float, after: float, low: float | None, high: float | None, margin: float | None
) -> Says:
    if before == after:
        return "same"
    if low is not None and high is not None:
        if low <= 0 <= high:
            return "within noise"
        return "better" if (low > 0) == (declared.better == "higher") else "worse"
    if margin is None:
        return ""
    if abs(after - before) <= margin:
        return "within margin"
    return "better" if declared.improves(after, before) else "worse"


def _declared(name: str) -> Metric | None:
    try:
        return metric(name)
    except KeyError:
        return None
