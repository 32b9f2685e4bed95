"""What several commands ask the catalogue, each a short function of a session.

All of them go through an index: with 100,000 model versions they take milliseconds (`tests/bench/run.py catalogue`).
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import and_, exists, func, select
from sqlalchemy.orm import Session, aliased

from flows.catalogue.schema import Decision, Entry, Execution, Member, ModelVersion, Procedure, Release, Run

REPRODUCTION, ALARM, SETTLED = "reproduction", "alarm", "settled"  # kinds of journal entries


@dataclass(frozen=True)
class InProduction:
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
class Standing:
    """The newest release of a family: what is in production."""

    family: str
    number: int
    since: datetime
    run: str
    who: str
    why: str
    restores: int | None
    members: tuple[InProduction, ...]


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
class Noted:
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


def production(session: Session) -> dict[str, Standing]:
    """What is in production of each family that was ever released."""
    newest = select(Release.family, func.max(Release.number).label("number")).group_by(Release.family).subquery()
    last = and_(Release.family == newest.c.family, Release.number == newest.c.number)
    releases = session.scalars(select(Release).join(newest, last).order_by(Release.family)).all()
    version = and_(ModelVersion.name == Member.model, ModelVersion.number == Member.version)
    rows = session.execute(
        select(Member, ModelVersion.metrics, ModelVersion.tag)
        .outerjoin(ModelVersion, version)
        .where(Member.release_id.in_([release.id for release in releases]))
        .order_by(Member.model)
    ).tuples()
    members = defaultdict(list)
    for one, metrics, tag in rows:
        members[one.release_id].append(InProduction(one.model, one.version, one.weights, metrics or {}, tag or ""))
    return {one.family: _standing(one, members[one.id]) for one in releases}


def waiting(session: Session, standing: Mapping[str, Standing | None]) -> list[Waiting]:
    """Versions whose last decision waits for an approval and came after those of what stands in production.

    standing: by family, None for one that was never released.
    """
    runs = {family: one.run if one else "" for family, one in standing.items()}
    in_production = Decision.run_id.in_(list(runs.values()))
    firsts = select(Decision.run_id, func.min(Decision.id)).where(in_production).group_by(Decision.run_id)
    first = dict(session.execute(firsts).tuples().all())
    after = {family: first.get(run, 0) for family, run in runs.items()}
    later = aliased(Decision)
    is_last = ~exists().where(later.version_id == Decision.version_id, later.id > Decision.id)
    columns = (Decision.id, ModelVersion.name, ModelVersion.number, ModelVersion.family, Decision.run_id)
    rows = session.execute(
        select(*columns, Decision.reason, Decision.created)
        .join(ModelVersion, Decision.version_id == ModelVersion.id)
        .where(Decision.verdict == "waiting", Decision.id > min(after.values(), default=0), is_last)
        .order_by(Decision.id)
    )
    return [
        Waiting(name, number, family, run, reason, since)
        for decision, name, number, family, run, reason, since in rows.tuples()
        if decision > after.get(family, 0) and run != runs.get(family)
    ]


def unfinished(session: Session) -> list[Unfinished]:
    """Procedures that are under way, or were killed."""
    columns = (Procedure.id, Procedure.kind, Procedure.family, Procedure.number, Procedure.created)
    rows = session.execute(select(*columns).where(Procedure.state == "open").order_by(Procedure.number))
    return [Unfinished(*row) for row in rows.tuples()]


def alarms(session: Session) -> list[Noted]:
    """The alarms that nobody has settled."""
    settled = set(session.scalars(select(Entry.subject).where(Entry.kind == SETTLED)))
    entries = session.scalars(select(Entry).where(Entry.kind == ALARM).order_by(Entry.seq))
    return [_noted(entry) for entry in entries if str(entry.seq) not in settled]


def reproductions(session: Session, titles: Iterable[str]) -> dict[str, Noted]:
    """The last reproduction of each of these model versions, by title; what was never reproduced is left out."""
    of_these = (Entry.kind == REPRODUCTION, Entry.subject.in_(list(titles)))
    last = select(func.max(Entry.seq)).where(*of_these).group_by(Entry.subject)
    return {entry.subject: _noted(entry) for entry in session.scalars(select(Entry).where(Entry.seq.in_(last)))}


def last_runs(session: Session, count: int) -> list[Past]:
    """The runs that were recorded last, the newest first."""
    runs = session.scalars(select(Run).order_by(Run.seq.desc()).limit(count)).all()
    stages: dict[str, dict[str, int]] = defaultdict(dict)
    number = func.count()
    actions = select(Execution.run_id, Execution.action, number).group_by(Execution.run_id, Execution.action)
    for run, action, found in session.execute(actions.where(Execution.run_id.in_([one.id for one in runs]))).tuples():
        stages[run][action] = found
    return [Past(one.id, one.state, one.trigger, one.started, one.ended, stages[one.id]) for one in runs]


def _standing(release: Release, members: list[InProduction]) -> Standing:
    return Standing(
        family=release.family,
        number=release.number,
        since=release.created,
        run=release.run_id,
        who=release.who,
        why=release.why,
        restores=release.restores,
        members=tuple(members),
    )


def _noted(entry: Entry) -> Noted:
    return Noted(entry.seq, entry.subject, entry.at, json.loads(entry.body))
