"""What runs cost, what they saved, and what stages are likely to cost, by the executions that the catalogue has."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from data.core.params import UserError
from flows.catalogue.schema import Execution, Run
from flows.stage.spending import Estimate, Usage, total

MADE = ("ran", "resumed")  # actions that made outputs
LOOKED_AT = 20  # executions of a stage among which the one most alike is found
NAMED = 3  # runs that an error lists
FIELDS = {  # column of an execution: field of Usage
    "machine_seconds": "seconds",
    "cpu_seconds": "cpu_seconds",
    "gpu_seconds": "gpu_seconds",
    "bytes_in": "bytes_in",
    "bytes_out": "bytes_out",
    "peak_memory": "peak_memory",
}
COLUMNS = tuple(getattr(Execution, name) for name in FIELDS)


@dataclass(frozen=True)
class StageCost:
    """What one stage cost in one run."""

    stage: str
    action: str
    host: str
    usage: Usage | None  # None where nothing was attempted
    saved: Usage | None = None  # of a stage that was restored or current: what it cost when it was made


@dataclass(frozen=True)
class RunCost:
    """What one run cost, stage by stage."""

    run: str
    state: str
    trigger: str
    started: datetime
    ended: datetime
    stages: tuple[StageCost, ...]

    @cached_property
    def spent(self) -> Usage:
        return total(one.usage for one in self.stages if one.usage)

    @cached_property
    def saved(self) -> Usage:
        return total(one.saved for one in self.stages if one.saved)


def find(session: Session, wanted: str | None) -> str | None:
    """The id of a run by its id or tag, of the newest one without either; None if there is none at all."""
    newest = session.scalars(select(Run.id).order_by(Run.seq.desc()).limit(NAMED)).all()
    if wanted is None:
        return newest[0] if newest else None
    identifier = wanted.removeprefix("run/")
    if not newest:
        raise UserError(f"no run '{identifier}': none has been recorded here yet; the first: remint retrain")
    if session.get(Run, identifier) is not None:
        return identifier
    close = difflib.get_close_matches(identifier, session.scalars(select(Run.id)).all(), n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"the newest: {', '.join(newest)}"
    raise UserError(f"no run '{identifier}' is in the catalogue; {hint}")


def of_runs(session: Session, identifiers: Iterable[str]) -> list[RunCost]:
    """What these runs cost, in the order in which they were recorded, the newest first."""
    runs = session.scalars(select(Run).where(Run.id.in_(list(identifiers))).order_by(Run.seq.desc())).all()
    columns = (Execution.run_id, Execution.stage, Execution.action, Execution.host, Execution.input_digest, *COLUMNS)
    wanted = Execution.run_id.in_([run.id for run in runs])
    rows = session.execute(select(*columns).where(wanted).order_by(Execution.id)).all()
    kept = {(row.stage, row.input_digest) for row in rows if row.action in ("restored", "current")}
    made = of_executions(session, kept)
    stages: dict[str, list[StageCost]] = {run.id: [] for run in runs}
    for row in rows:
        saved = made.get((row.stage, row.input_digest)) if row.action in ("restored", "current") else None
        stages[row.run_id].append(StageCost(row.stage, row.action, row.host, _usage(row[5:]), saved))
    return [RunCost(run.id, run.state, run.trigger, run.started, run.ended, tuple(stages[run.id])) for run in runs]


def newest(session: Session, count: int) -> list[RunCost]:
    """What the runs cost that were recorded last, the newest first."""
    return of_runs(session, session.scalars(select(Run.id).order_by(Run.seq.desc()).limit(count)))


def of_executions(session: Session, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Usage]:
    """What it cost to make outputs, by stage and digest of its inputs; of several executions the last counts."""
    both = tuple_(Execution.stage, Execution.input_digest)
    rows = session.execute(
        select(Execution.stage, Execution.input_digest, *COLUMNS)
        .where(both.in_([(stage, digest) for stage, digest in wanted if digest]), Execution.action.in_(MADE))
        .order_by(Execution.id)
    )
    found = {(row[0], row[1]): _usage(row[2:]) for row in rows}
    return {which: usage for which, usage in found.items() if usage}


def estimates(
    session: Session,
    stages: Iterable[str],
    machine: str,
    parameters: str,
    steps: Callable[[str, str], tuple[int, int] | None] = lambda stage, commit: None,
) -> dict[str, Estimate]:
    """What stages are likely to cost: as the last time, preferably on this class of machine with these parameters.

    steps: of a stage and a run's commit, the steps that it trained for then and is to train for now; its time goes with
    them. What an attempt that was stopped since then has spent is taken off: its checkpoint is there. Stages that never
    ran are left out.
    """
    found = {}
    for stage in stages:
        ran = session.execute(
            select(Run.id, Run.commit, Run.machine, Run.parameters, *COLUMNS)
            .join(Execution, Execution.run_id == Run.id)
            .where(Execution.stage == stage, Execution.action == "ran", Execution.machine_seconds.is_not(None))
            .order_by(Execution.id.desc())
            .limit(LOOKED_AT)
        ).all()
        if ran:
            alike = min(ran, key=lambda row: (row.machine != machine, row.parameters != parameters))
            trained = steps(stage, alike.commit)
            whole = _scaled(_usage(alike[4:]), trained)
            found[stage] = Estimate(_without(whole, _stopped(session, stage)), alike.id, trained)
    return found


def _scaled(usage: Usage | None, steps: tuple[int, int] | None) -> Usage:
    """A usage whose time goes with the steps: then, now."""
    assert usage is not None
    factor = steps[1] / steps[0] if steps else 1.0
    times = {name: factor * getattr(usage, name) for name in ("seconds", "cpu_seconds", "gpu_seconds")}
    return replace(usage, **times)


def _stopped(session: Session, stage: str) -> Usage:
    """What was spent on a stage since it was last made."""
    made = select(func.max(Execution.id)).where(Execution.stage == stage, Execution.action.in_(MADE)).scalar_subquery()
    since = (Execution.stage == stage, Execution.action == "stopped", Execution.id > made)
    rows = session.execute(select(*COLUMNS).where(*since)).all()
    return total(usage for row in rows if (usage := _usage(row)))


def _without(whole: Usage, part: Usage) -> Usage:
    return Usage(
        seconds=max(0.0, whole.seconds - part.seconds),
        cpu_seconds=max(0.0, whole.cpu_seconds - part.cpu_seconds),
        gpu_seconds=max(0.0, whole.gpu_seconds - part.gpu_seconds),
        bytes_in=whole.bytes_in,
        bytes_out=whole.bytes_out,
        peak_memory=whole.peak_memory,
    )


def _usage(columns: Sequence[Any]) -> Usage | None:
    """The usage in an execution's COLUMNS, None if its time was not measured; what else was not measured is 0."""
    values = dict(zip(FIELDS.values(), (value or 0 for value in columns), strict=True))
    return Usage(**values) if columns[0] is not None else None
