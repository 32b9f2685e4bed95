"""The table that ends a run: for each stage what happened, how long it took, its headline metric, and production's.

Everything here makes values and text from values; nothing reads a file or a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flows.pipeline.plan import Plan
from flows.pipeline.run import StageResult, headline
from flows.release.gates import decision as words
from flows.show.columns import columns
from flows.stage.spending import Estimate, duration, total

if TYPE_CHECKING:
    from flows.release.gates.compare import Says
    from flows.release.gates.decision import Decision
    from flows.release.outcome import Release

WORDS = {
    "ran": "done",
    "restored": "restored from the run cache",
    "current": "unchanged",
    "failed": "FAILED",
    "stopped": "stopped, to go on",
    "skipped": "not run",
}


@dataclass(frozen=True)
class Row:
    stage: str
    action: str
    seconds: float
    metric: str = ""
    value: float | None = None
    production: float | None = None
    production_version: int | None = None
    says: Says = ""


def rows(results: Iterable[StageResult], release: Release) -> list[Row]:
    """One row per stage. `release.before` has what was in production when the run was judged."""
    made = []
    for result in results:
        row = Row(result.name, result.action, result.seconds)
        if key := headline(result.metrics):
            row = replace(row, metric=key, value=result.metrics[key], **_production(result.name, key, release))
        made.append(row)
    return made


def text(rows: Sequence[Row]) -> str:
    """The rows as aligned columns."""
    cells = [
        (row.stage, WORDS[row.action].split(" from ")[0], _seconds(row.seconds), _value(row), _against(row))
        for row in rows
    ]
    return columns([("stage", "", "seconds", "metric", "against production"), *cells], right=(2,))


def release_lines(release: Release) -> list[str]:
    """What became of each family and why, its models beneath it, and what is alarming."""
    lines = []
    for outcome in release.outcomes:
        lines.append(str(outcome))
        lines += [f"    {finding}" for finding in outcome.left]
        own = [one for one in release.decisions if one.family == outcome.family]
        lines += [f"    {one.model} v{one.version}: {one.verdict}, {one.reason}" for one in own]
    return [*lines, *(f"ALARM: {alarm}" for alarm in release.alarms)]


def next_steps(decisions: Iterable[Decision], run: str) -> list[str]:
    """What a person does about versions that wait for approval: first look, then decide."""
    waiting = [one for one in decisions if one.waits_itself]
    families = dict.fromkeys(one.family for one in waiting if one.replaces is not None)
    looks = [f"look first: {words.look(family, run)}" for family in families]
    return looks + [f"then: {words.approve(one.model, one.version)}" for one in waiting]


def plan_text(plan: Plan, estimates: Mapping[str, Estimate] | None = None) -> str:
    """A plan as aligned columns: stage, action, likely time where there is experience, reasons; and their sum.

    Below it stands what the times are taken from.
    """
    if not estimates:
        return columns([("stage", "action", "why"), *((s.stage, s.action, s.why()) for s in plan.steps)])
    lines = [("stage", "action", "likely", "why")]
    for step in plan.steps:
        known = estimates.get(step.stage)
        likely = duration(known.usage.seconds) if known else "?" if step.action == "run" else ""
        lines.append((step.stage, step.action, likely, step.why()))
    unknown = sum(line[2] == "?" for line in lines)
    rest = f"and {unknown} stage{'s' * (unknown > 1)} that never ran" if unknown else ""
    whole = duration(total(one.usage for one in estimates.values()).seconds)
    return "\n".join([columns([*lines, ("in all", "", whole, rest)], right=(2,)), *_basis(estimates)])


def _basis(estimates: Mapping[str, Estimate]) -> Iterator[str]:
    """The runs that likely times are from, and whose were stretched or shortened with the steps."""
    runs = sorted({one.run for one in estimates.values()})
    more = f" and {len(runs) - 1} earlier" if len(runs) > 1 else ""
    yield f"likely: what the stage took in {runs[-1]}{more}"
    for stage, one in estimates.items():
        if one.steps:
            yield f"  {stage}: in proportion to its steps, {one.steps[0]:,} then and {one.steps[1]:,} now"


def to_json(rows: Iterable[Row]) -> list[dict[str, Any]]:
    return [
        {
            "stage": row.stage,
            "action": row.action,
            "seconds": round(row.seconds, 2),
            "metric": row.metric or None,
            "value": row.value,
            "production": row.production,
            "says": row.says or None,
        }
        for row in rows
    ]


def _production(stage: str, key: str, release: Release) -> dict[str, Any]:
    """The same number of the version that was in production, for a stage that evaluates a model."""
    for one in release.registered:
        model = one.model
        name = key.removeprefix(f"{model.section}.") if model.section else key
        if stage == f"evaluate@{model.evaluation}" and (not model.section or key != name):
            for number in release.compared.get(model.name, ()):
                if number.metric == name and number.before is not None:
                    version = release.before[model.name].version
                    return {"production": number.before, "production_version": version, "says": number.says}
    return {}


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds else "-"


def _value(row: Row) -> str:
    return "" if row.value is None else f"{row.metric} {row.value:.4g}"


def _against(row: Row) -> str:
    if row.value is None or row.production is None:
        return ""
    return f"v{row.production_version} {row.production:.4g} {row.says}".rstrip()
