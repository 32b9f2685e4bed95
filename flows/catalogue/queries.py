"""What several commands ask the catalogue, each a short function of a session.

All of them go through an index: with 100,000 model versions they take milliseconds (`tests/bench/run.py catalogue`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Executable, Text, and_, bindparam, cast, exists, func, select
from sqlalchemy.orm import Session, aliased

from flows.catalogue.schema import Decision, Entry, Execution, Member, ModelVersion, Procedure, Release, Run

REPRODUCTION, ALARM, SETTLED = "reproduction", "alarm", "settled"  # kinds of journal entries


@dataclass(frozen=True)
class ReleasedModel:
    """A model of a family's newest release."""

    model: str
    version: int
    weights: str
    metrics: Mapping[str, float] = field(default_factory=dict)  # {} where the version is of another catalogue
    tag: str = ""  # in git, "tokenizer@v3.0.0"

    @property
    def title(self) -> str:
        """As people and the journal call it: "tokenizer@v3"."""
        return self.tag.removesuffix(".0.0") or f"{self.model}@v{self.version}"


@dataclass(frozen=True)
class CurrentRelease:
    """The newest release of a family: what is in production."""

    family: str
    number: int
    since: datetime
    run: str
    who: str
    why: str
    restores: int | None
    members: tuple[ReleasedModel, ...]


@dataclass(frozen=True)
class Waiting:
    """A model version that passed its gates and waits for a person's approval."""

    model: str
    version: int
    family: str
    run: str
    reason: str
    since: datetime


@dataclass(frozen=True)
class Unfinished:
    """A promotion or rollback that was begun and neither ended nor undone."""

    id: str
    kind: str
    family: str
    number: int
    since: datetime


@dataclass(frozen=True)
class Logged:
    """A journal entry with its body read."""

    seq: int
    subject: str
    at: datetime
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Past:
    """A run and how many of its stages ran, were restored, ..."""

    id: str
    state: str
    trigger: str
    started: datetime
    ended: datetime
    stages: Mapping[str, int]


# The statements are built once: building them anew takes longer than asking the database.
_newest = select(Release.family, func.max(Release.number).label("number")).group_by(Release.family).subquery()
_PRODUCTION = (
    select(
        Release.family,
        Release.number,
        Release.created,
        Release.run_id,
        Release.who,
        Release.why,
        Release.restores,
        Member.model,
        Member.version,
        Member.weights,
        ModelVersion.metrics,
        ModelVersion.tag,
    )
    .join(_newest, and_(Release.family == _newest.c.family, Release.number == _newest.c.number))
    .outerjoin(Member, Member.release_id == Release.id)
    .outerjoin(ModelVersion, and_(ModelVersion.name == Member.model, ModelVersion.number == Member.version))
    .order_by(Release.family, Member.model)
)
_FIRST_DECISIONS = (
    select(Decision.run_id, func.min(Decision.id))
    .where(Decision.run_id.in_(bindparam("runs", expanding=True)))
    .group_by(Decision.run_id)
)
_later = aliased(Decision)
_WAITING = (
    select(
        Decision.id,
        ModelVersion.name,
        ModelVersion.number,
        ModelVersion.family,
        Decision.run_id,
        Decision.reason,
        Decision.created,
    )
    .join(ModelVersion, Decision.version_id == ModelVersion.id)
    .where(
        Decision.verdict == "waiting",
        Decision.id > bindparam("after"),
        ~exists().where(_later.version_id == Decision.version_id, _later.id > Decision.id),
    )
    .order_by(Decision.id)
)
_UNFINISHED = (
    select(Procedure.id, Procedure.kind, Procedure.family, Procedure.number, Procedure.created)
    .where(Procedure.state == "open")
    .order_by(Procedure.number)
)
_NOTED = (Entry.seq, Entry.subject, Entry.at, Entry.body)
_settled = aliased(Entry)
_ALARMS = (
    select(*_NOTED)
    .where(
        Entry.kind == ALARM,
        ~exists().where(_settled.kind == SETTLED, _settled.subject == cast(Entry.seq, Text)),
    )
    .order_by(Entry.seq)
)
_REPRODUCTIONS = select(*_NOTED).where(
    Entry.seq.in_(
        select(func.max(Entry.seq))
        .where(Entry.kind == REPRODUCTION, Entry.subject.in_(bindparam("titles", expanding=True)))
        .group_by(Entry.subject)
    )
)
_last = select(Run).order_by(Run.seq.desc()).limit(bindparam("count")).subquery()
_LAST_RUNS = (
    select(
        _last.c.id,
        _last.c.state,
        _last.c.trigger,
        _last.c.started,
        _last.c.ended,
        Execution.action,
        func.count(Execution.id),
    )
    .outerjoin(Execution, Execution.run_id == _last.c.id)
    .group_by(_last.c.seq, *_last.c["id", "state", "trigger", "started", "ended"], Execution.action)
    .order_by(_last.c.seq.desc())
)


def production(session: Session) -> dict[str, CurrentRelease]:
    """What is in production of each family that was ever released."""
    found = {}
    for (family, *release), rows in groupby(_rows(session, _PRODUCTION), key=lambda row: tuple(row[:7])):
        members = [
            ReleasedModel(model, version, weights, metrics or {}, tag or "")
            for *_, model, version, weights, metrics, tag in rows
            if model is not None
        ]
        number, since, run, who, why, restores = release
        found[family] = CurrentRelease(family, number, since, run, who, why, restores, tuple(members))
    return found


def waiting(session: Session, current: Mapping[str, CurrentRelease | None]) -> list[Waiting]:
    """Versions whose last decision waits for an approval and came after those of what stands in production.

    current: by family, None for one that was never released.
    """
    runs = {family: one.run if one else "" for family, one in current.items()}
    first = dict(tuple(row) for row in _rows(session, _FIRST_DECISIONS, runs=list(runs.values())))
    after = {family: first.get(run, 0) for family, run in runs.items()}
    return [
        Waiting(name, number, family, run, reason, since)
        for decision, name, number, family, run, reason, since in _rows(
            session, _WAITING, after=min(after.values(), default=0)
        )
        if decision > after.get(family, 0) and run != runs.get(family)
    ]


def unfinished(session: Session) -> list[Unfinished]:
    """Procedures that are under way, or were killed."""
    return [Unfinished(*row) for row in _rows(session, _UNFINISHED)]


def alarms(session: Session) -> list[Logged]:
    """The alarms that nobody has settled."""
    return [_logged(row) for row in _rows(session, _ALARMS)]


def reproductions(session: Session, titles: Iterable[str]) -> dict[str, Logged]:
    """The last reproduction of each of these model versions, by title; what was never reproduced is left out."""
    return {row.subject: _logged(row) for row in _rows(session, _REPRODUCTIONS, titles=list(titles))}


def last_runs(session: Session, count: int) -> list[Past]:
    """The runs that were recorded last, the newest first."""
    found = []
    for run, rows in groupby(_rows(session, _LAST_RUNS, count=count), key=lambda row: tuple(row[:5])):
        identifier, state, trigger, started, ended = run
        stages = {action: number for *_, action, number in rows if action is not None}
        found.append(Past(identifier, state, trigger, started, ended, stages))
    return found


def record_of(session: Session, tag: str) -> tuple[str, str] | None:
    """Commit of record and weights of the version with this tag in git: those of the run that made it."""
    wanted = select(Run.commit, ModelVersion.weights).join(ModelVersion, ModelVersion.run_id == Run.id)
    row = session.execute(wanted.where(ModelVersion.tag == tag)).first()
    return None if row is None else (row[0], row[1])


def _rows(session: Session, statement: Executable, **values: Any) -> list[Any]:
    """Rows of columns, read beside the ORM, which takes as long as the database for each statement."""
    session.flush()
    return list(session.connection().execute(statement, values))


def _logged(row: Any) -> Logged:
    return Logged(row.seq, row.subject, row.at, json.loads(row.body))
