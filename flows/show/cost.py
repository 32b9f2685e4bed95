"""Costs as tables, in words and, if prices are set, in money: for `remint cost` and the run's report.

    REMINT_PRICE_CPU  an hour of CPU time
    REMINT_PRICE_GPU  an hour of one GPU

What was neither used nor measured is shown as a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from flows.catalogue import costs, database
from flows.catalogue.costs import RunCost
from flows.pipeline import environment, parameters
from flows.pipeline.graph import Stage
from flows.pipeline.plan import Plan
from flows.pipeline.run import RunInfo
from flows.settings import Settings
from flows.show.columns import columns
from flows.show.lineage.words import size
from flows.stage.spending import Estimate, Usage, duration, total
from models.tracking.names import flatten

HEADINGS = ("machine", "CPU", "GPU", "fetched", "pushed", "memory")


@dataclass(frozen=True)
class Prices:
    """What an hour costs, in anybody's currency; None: nobody said."""

    cpu: float | None = None
    gpu: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Prices:
        return cls(settings.price_cpu, settings.price_gpu)

    def __bool__(self) -> bool:
        return self.cpu is not None or self.gpu is not None

    def of_usage(self, used: Usage) -> float:
        """The price of some usage; what has no price costs nothing."""
        return ((self.cpu or 0.0) * used.cpu_seconds + (self.gpu or 0.0) * used.gpu_seconds) / 3600


def estimates(settings: Settings, run: RunInfo, stages: Sequence[Stage], plan: Plan) -> dict[str, Estimate]:
    """What the stages that a plan runs are likely to cost; those without experience are left out."""
    wanted = [step.stage for step in plan.steps if step.action == "run"]
    if not wanted or not database.exists(settings):
        return {}
    sections = {stage.name: stage.params for stage in stages}

    def steps(stage: str, commit: str) -> tuple[int, int] | None:
        """Those that a stage trained for at a run's commit and is to train for now, None if they are the same."""
        then = trained_for(parameters.earlier(settings.root, commit), sections[stage])
        now = trained_for(parameters.read(run.workspace), sections[stage])
        return (then, now) if then and now and then != now else None

    machine = environment.describe(run.workspace).machine
    with closing(database.open(settings)) as catalogue, catalogue.read() as session:
        return costs.estimates(session, wanted, machine, run.parameters, steps)


def trained_for(values: Mapping[str, Any], sections: Iterable[str]) -> int | None:
    """The steps of the training whose parameters stand in these sections of params.yaml; None without any."""
    own = {
        name: value
        for name, value in flatten(values).items()
        if name.endswith(".steps") and ".sampler." not in name and any(name.startswith(f"{one}.") for one in sections)
    }
    return next(iter(own.values())) if len(own) == 1 else None


def cells(used: Usage | None, prices: Prices) -> tuple[str, ...]:
    """A usage in words, one for each of HEADINGS, and its price if there are prices."""
    one = used or Usage()
    times = [duration(value) if value else "-" for value in (one.seconds, one.cpu_seconds, one.gpu_seconds)]
    sizes = [size(value) if value else "-" for value in (one.bytes_in, one.bytes_out, one.peak_memory)]
    return (*times, *sizes, *((money(prices.of_usage(one)) if used else "-",) if prices else ()))


def saved(used: Usage | None, prices: Prices) -> str:
    """What was not spent again, in short: machine time, and money."""
    if used is None or not used.seconds:
        return ""
    return duration(used.seconds) + (f" ({money(prices.of_usage(used))})" if prices else "")


def money(amount: float) -> str:
    """Two decimals; a trace of anything is more than nothing."""
    return "<0.01" if 0 < amount < 0.005 else f"{amount:.2f}"


def table(cost: RunCost, prices: Prices) -> list[tuple[str, ...]]:
    """Headings, a row per stage, and their sum; without the columns in which there is nothing."""
    rows = [(one.stage, one.action, *cells(one.usage, prices), saved(one.saved, prices)) for one in cost.stages]
    return _told("stage", rows, [cost.spent], [cost.saved], prices)


def past(costs: Sequence[RunCost], prices: Prices) -> list[tuple[str, ...]]:
    """The same for several runs, a row for each."""
    rows = [(one.run, one.state, *cells(one.spent, prices), saved(one.saved, prices)) for one in costs]
    return _told("run", rows, [one.spent for one in costs], [one.saved for one in costs], prices)


def _told(
    kind: str, rows: Sequence[tuple[str, ...]], spent: Sequence[Usage], kept: Sequence[Usage], prices: Prices
) -> list[tuple[str, ...]]:
    whole = ("in all", "", *cells(total(spent), prices), saved(total(kept), prices))
    lines = [(kind, "", *HEADINGS, *(("price",) if prices else ()), "saved"), *rows, whole]
    there = [i for i in range(len(whole)) if i < 3 or any(line[i] not in ("", "-") for line in lines[1:])]
    return [tuple(line[i] for i in there) for line in lines]


def text(costs: Sequence[RunCost], prices: Prices) -> str:
    """What a run cost, as aligned columns under a line that names it; of several runs a line each below."""
    first = costs[0]
    took = duration((first.ended - first.started).total_seconds())
    blocks = [f"run {first.run}: {first.state}, {first.trigger}, took {took}\n{_aligned(table(first, prices))}"]
    if len(costs) > 1:
        blocks.append(f"the last {len(costs)} runs\n{_aligned(past(costs, prices))}")
    return "\n\n".join(blocks)


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    return columns(lines, right=range(2, len(lines[0])))


def to_json(cost: RunCost, prices: Prices) -> dict[str, Any]:
    """A run's cost as plain values; times in seconds, sizes in bytes."""
    return {
        "run": cost.run,
        "state": cost.state,
        "trigger": cost.trigger,
        "started": cost.started.isoformat(),
        "ended": cost.ended.isoformat(),
        "spent": usage_json(cost.spent, prices),
        "saved": usage_json(cost.saved, prices),
        "stages": [
            {
                "stage": one.stage,
                "action": one.action,
                "host": one.host,
                "spent": usage_json(one.usage, prices),
                "saved": usage_json(one.saved, prices),
            }
            for one in cost.stages
        ],
    }


def usage_json(used: Usage | None, prices: Prices) -> Mapping[str, Any] | None:
    """A usage as plain values, with its price if there are prices."""
    if used is None:
        return None
    return asdict(used) | ({"price": round(prices.of_usage(used), 6)} if prices else {})
