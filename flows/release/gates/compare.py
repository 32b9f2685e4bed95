"""Two models held against each other: metric by metric, and where that can be, on the same held-out samples.

`per_sample.parquet` of an evaluation has a row per held-out picture (`key`), or per generated one (`sample`, drawn
for `class_asked` from the evaluation's seed). Joined by that key, the differences of a pair are what is resampled:
how hard a picture is cancels out.

One rule for the gates, for the table that ends a run, its report and `remint diff`: the 95 % interval of the paired
difference decides; where a metric has no values per sample, the policy's margin stands for its noise; where there is
neither, nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from models.metrics import METRICS, Metric, metric

INTERVAL = 0.95  # two-sided: non-inferiority holds at 2.5 %
DRAWS = 10_000
CHUNK = 1 << 22  # indices drawn at a time: 32 MB

Says = Literal["better", "worse", "within noise", "within margin", "same", ""]


class NotComparable(Exception):
    """Two evaluations whose samples do not pair up; the message says why in one line."""


@dataclass(frozen=True)
class Samples:
    """What one model showed on every sample of its evaluation."""

    keys: tuple[str, ...]
    metrics: Mapping[str, np.ndarray]  # "delta1", "delta1_glass" -> float64 (N,), NaN where there is no number


@dataclass(frozen=True)
class InProduction:
    """A version in production with its own numbers, measured in the context in which the candidates were."""

    version: int
    weights: str
    parents: Mapping[str, str]
    metrics: Mapping[str, float]
    samples: Samples | None = None
    problem: str = ""  # why it has no numbers that a candidate's may be compared with
    config: str = ""  # sha256 of its config.json


@dataclass(frozen=True)
class Speed:
    """Milliseconds per picture of a candidate and of production, taken in turns in one process."""

    candidate: float | None = None
    production: float | None = None
    problem: str = ""  # why there are no numbers


@dataclass(frozen=True)
class Measured:
    """What a candidate showed beside the means of its evaluation."""

    samples: Samples | None = None
    problem: str = ""  # why there are no samples
    bytes: int | None = None
    speed: Speed = Speed()
    validation: str = "no report"  # of its data: "passed", or what was found


@dataclass(frozen=True)
class Paired:
    """Differences candidate - production over the samples that both have a number for (N,), N >= 2."""

    candidate: float  # its mean over these samples
    production: float
    differences: np.ndarray

    @property
    def samples(self) -> int:
        return len(self.differences)

    @property
    def difference(self) -> float:
        return float(self.differences.mean())

    @cached_property
    def _means(self) -> np.ndarray:
        return np.sort(bootstrap_means(self.differences))

    def bound(self, level: float) -> float:
        """The `level` quantile of the mean difference under resampling.

        The percentile method with the spread widened by sqrt(n / (n - 1)): a resample of n has a variance that is
        too small by that factor (Hesterberg 2015, "What teachers should know about the bootstrap").
        """
        n = self.samples
        return self.difference + (float(np.quantile(self._means, level)) - self.difference) * (n / (n - 1)) ** 0.5

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high) of the mean difference."""
        return self.bound((1 - INTERVAL) / 2), self.bound((1 + INTERVAL) / 2)


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
    declared = [name for name in METRICS if name in before or name in after]
    found = []
    for name in [*declared, *sorted({*before, *after} - set(declared))]:
        old, new = before.get(name), after.get(name)
        pairs = _pairs(name, *samples) if comparable and samples and old != new else None
        low, high = pairs.interval if pairs else (None, None)
        about = _declared(name)
        says: Says = ""
        if comparable and about and old is not None and new is not None:
            says = _says(about, old, new, low, high, (margins or {}).get(name))
        better, unit = (about.better, about.unit) if about else ("", "")
        count = pairs.samples if pairs else 0
        found.append(Number(name, old, new, better, unit, name in METRICS, says, low, high, count, comparable))
    return tuple(found)


def _pairs(name: str, before: Samples, after: Samples) -> Paired | None:
    """The values of one metric sample by sample; None for a metric without them."""
    try:
        return pair(after, before, name)
    except NotComparable:
        return None


def _declared(name: str) -> Metric | None:
    try:
        return metric(name)
    except KeyError:
        return None


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


def bootstrap_means(values: np.ndarray, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Means of `draws` resamples of `values` (N,), each of N values with replacement; the same seed, the same draws."""
    random, n = np.random.default_rng(seed), len(values)
    if (values == values[0]).all():
        return np.full(draws, float(values[0]))  # no rounding where there is no noise
    at_once = max(1, CHUNK // n)
    parts = [
        values[random.integers(0, n, (min(at_once, draws - done), n))].mean(axis=1) for done in range(0, draws, at_once)
    ]
    return np.concatenate(parts)


def pair(candidate: Samples, production: Samples, name: str) -> Paired:
    """The candidate's and production's values of one metric, sample by sample.

    A sample for which production has no number is left out (a picture without a clear pair of points has no pair
    accuracy). NotComparable where the samples are not the same ones, or the candidate lacks a number that
    production has: leaving out what a model failed on would flatter it.
    """
    ours, theirs = candidate.metrics.get(name), production.metrics.get(name)
    if ours is None or theirs is None:
        raise NotComparable(f"{'the candidate' if ours is None else 'production'} has no {name} per sample")
    for which, samples in (("the candidate's", candidate), ("production's", production)):
        if len(set(samples.keys)) != len(samples.keys):
            twice = next(key for i, key in enumerate(samples.keys) if key in samples.keys[:i])
            raise NotComparable(f"{which} evaluation has the sample {twice} twice")
    place = {key: i for i, key in enumerate(production.keys)}
    for kind, lacking in (
        ("production was not evaluated on", [key for key in candidate.keys if key not in place]),
        ("the candidate was not evaluated on", sorted(set(place) - set(candidate.keys))),
    ):
        if lacking:
            raise NotComparable(f"{kind} {len(lacking)} of the samples ({lacking[0]}, ...)")
    theirs = theirs[[place[key] for key in candidate.keys]]
    there = np.isfinite(theirs)
    if missing := int((there & ~np.isfinite(ours)).sum()):
        raise NotComparable(f"the candidate has no {name} for {missing} of the samples on which production has one")
    if there.sum() < 2:
        raise NotComparable(f"only {int(there.sum())} samples have a {name}: noise cannot be told from two or fewer")
    ours, theirs = ours[there], theirs[there]
    return Paired(float(ours.mean()), float(theirs.mean()), ours - theirs)


def read_samples(path: Path, section: str = "") -> Samples:
    """Read an evaluation's per_sample.parquet; `section` is the model's part of a file that holds several.

    NotComparable where the file is missing, damaged, or has no rows of this model.
    """
    import pyarrow.parquet as pq
    from pyarrow import ArrowException

    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise NotComparable(f"{path.name} is missing") from None
    except (ArrowException, OSError) as error:
        raise NotComparable(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from None
    columns = {name: np.asarray(table[name].to_pylist(), dtype=object) for name in table.column_names}
    if "model" in columns:
        own = columns["model"] == section
        columns = {name: values[own] for name, values in columns.items() if name != "model"}
    if "key" not in columns and not {"sample", "class_asked"} <= set(columns):
        raise NotComparable(f"{path.name} names no samples: it has the columns {', '.join(columns) or 'none'}")
    samples = _pictures(columns) if "key" in columns else _generated(columns)
    if not samples.keys:
        raise NotComparable(f"{path.name} has no rows{f' of {section}' if section else ''}")
    return samples


def _pictures(columns: Mapping[str, np.ndarray]) -> Samples:
    """A row per held-out picture; each measure also for each class alone, NaN elsewhere."""
    measures = {}
    for name, values in columns.items():
        if any(isinstance(value, str) for value in values):
            continue
        numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        measures[name] = numbers
        for label in sorted(set(columns.get("class", ()))):
            measures[f"{name}_{label}"] = np.where(columns["class"] == label, numbers, np.nan)
    return Samples(tuple(map(str, columns["key"])), measures)


def _generated(columns: Mapping[str, np.ndarray]) -> Samples:
    """A row per generated picture; which class it was to be is part of what makes it the same sample."""
    keys = tuple(f"{i} of class {label}" for i, label in zip(columns["sample"], columns["class_asked"], strict=True))
    agreed = 100.0 * (columns["class_seen"] == columns["class_asked"])
    return Samples(keys, {"class_agreement": agreed.astype(np.float64)})
