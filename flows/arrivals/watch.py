"""A look at the watched place: what is new is taken in, and whether production is to be made again is decided.

    seen = watch.look(settings, Thresholds(), say)
    if seen.decision: ...

What counts is what arrived since the newest run that was given it: many photographs, or ones unlike those that
production was made from. The journal of the catalogue has each batch, and each retraining that was started, once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from data.core.params import UserError
from data.validate import drift
from flows import repository
from flows.arrivals import baseline, batches, measure
from flows.arrivals.baseline import Production
from flows.arrivals.batches import Batch, Log
from flows.arrivals.intake import OnBatch, Taken, take_in
from flows.arrivals.run_inputs import LIST
from flows.arrivals.thresholds import Thresholds
from flows.catalogue import database, journal, known_runs
from flows.catalogue.schema import Entry
from flows.settings import Settings

ARRIVAL, TRIGGER = "arrival", "trigger"  # kinds of journal entries
PHOTOGRAPHS = "photographs"  # their subject
ENOUGH = 20  # new photographs, below which no drift is seen


@dataclass(frozen=True)
class Decision:
    """Why production is to be made again."""

    trigger: Literal["data", "drift"]
    why: str  # one line


@dataclass
class Seen:
    """What a look found."""

    taken: Taken
    total: int = 0  # photographs that a run would be given now
    waiting: int = 0  # that arrived since the newest run
    drift: dict[str, float] = field(default_factory=dict)  # "brightness": its PSI, ..., "confusion": the probability
    against: str = ""  # "depth #3"
    not_compared: str = ""  # why there is no drift statistic
    decision: Decision | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "place": self.taken.place,
            "batches": [batch.number for batch in self.taken.batches],
            "arrived": self.taken.arrived,
            "known": self.taken.known,
            "aside": [asdict(one) for one in self.taken.aside],
            "later": [{"name": name, "reason": reason} for name, reason in self.taken.later],
            "total": self.total,
            "waiting": self.waiting,
            "drift": self.drift,
            "against": self.against,
            "not_compared": self.not_compared,
            "decision": asdict(self.decision) if self.decision else None,
        }


def look(settings: Settings, thresholds: Thresholds, on_batch: OnBatch = lambda batch: None) -> Seen:
    """Take in what is new, write it into the journal, and decide."""
    log, found = batches.open(settings), baseline.find(settings)
    seen = Seen(take_in(settings, log, found, on_batch))
    with closing(database.open(settings)) as catalogue:
        every = log.read()
        catalogue.write(lambda session: _record(session, log, every))
        with catalogue.read() as session:
            begun = _last(session, TRIGGER, "photographs")
    since = _since(every, max(begun, _given(settings)))
    seen.total = sum(len(batch.photographs) for batch in every)
    seen.waiting = sum(batch.arrived for batch in since)
    _compare(seen, found, since)
    seen.decision = decide(seen, thresholds)
    return seen


def decide(seen: Seen, thresholds: Thresholds) -> Decision | None:
    """Drift is named before number: it is the more urgent reason."""
    if seen.waiting >= ENOUGH:
        for name, value in seen.drift.items():
            limit = thresholds.confusion if name == "confusion" else thresholds.shift
            if value > limit:
                why = f"{name} of {seen.waiting} new photographs against {seen.against}: {value:.3f}, over {limit:g}"
                return Decision("drift", why)
    if seen.waiting >= thresholds.at_least:
        return Decision("data", f"{seen.waiting} new photographs, {thresholds.at_least} are enough")
    return None


def record_trigger(settings: Settings, seen: Seen, run: str | None, state: str) -> None:
    """Write down that a retraining was started for what arrived, and what came of it; it is not started again."""
    assert seen.decision is not None
    body = {**asdict(seen.decision), "photographs": seen.total, "drift": seen.drift, "run": run, "state": state}
    with closing(database.open(settings)) as catalogue, catalogue.begin() as session:
        journal.append(session, TRIGGER, PHOTOGRAPHS, body)


def _record(session: Session, log: Log, every: Sequence[Batch]) -> None:
    """Write each batch into the journal that is not there yet, also one whose watch was killed before it could."""
    last = _last(session, ARRIVAL, "batch")
    for batch in every:
        if batch.number > last:
            about = {"batch": batch.number, "source": batch.source, "pool": log.pool}
            counts = {"photographs": batch.arrived, "aside": len(batch.aside)}
            journal.append(session, ARRIVAL, PHOTOGRAPHS, about | counts)


def _last(session: Session, kind: str, what: str) -> int:
    """A number in the newest entry of a kind, 0 if there is none."""
    newest = select(Entry.body).where(Entry.kind == kind, Entry.subject == PHOTOGRAPHS).order_by(Entry.seq.desc())
    body = session.scalars(newest.limit(1)).first()
    return int(json.loads(body)[what]) if body else 0


def _given(settings: Settings) -> int:
    """How many photographs the newest run was given."""
    newest = known_runs.newest(settings)
    text = repository.file_at(settings.root, newest, LIST.as_posix()) if newest else None
    return text.count("\n") - 1 if text else 0  # behind the line that names the pool


def _since(every: Sequence[Batch], given: int) -> list[Batch]:
    """The batches behind the first `given` photographs; a run is given whole batches."""
    total, found = 0, []
    for batch in every:
        total += len(batch.photographs)
        if total > given:
            found.append(batch)
    return found


def _compare(seen: Seen, found: Production | None, since: Sequence[Batch]) -> None:
    """Hold what arrived against what production was made from."""
    if found is None:
        seen.not_compared = "no depth model is in production yet"
        return
    seen.against = found.title
    if not seen.waiting:
        return
    try:
        before = found.baseline()
    except UserError as error:
        seen.not_compared = str(error)
        return
    new = measure.added(batch.statistics for batch in since if batch.arrived)
    seen.drift = {column: drift.stability_index(new[column], before.statistics[column]) for column in new}
    values = [value for batch in since if batch.student == found.student.bundle for value in batch.confusion]
    if values:
        seen.drift["confusion"] = measure.excess(values, before.confusion)
    seen.drift = {name: round(value, 4) for name, value in seen.drift.items()}


def lines(seen: Seen) -> list[str]:
    """A look for people."""
    taken = seen.taken
    said = [f"{taken.place}: {taken.arrived} new photographs, {taken.known} known, {len(taken.aside)} set aside"]
    said += [f"  set aside: {one.name!r} {one.reason}" for one in taken.aside]
    said += [f"  not yet: {name!r} {reason}" for name, reason in taken.later]
    said.append(f"{seen.waiting} since the newest run, of {seen.total} in all")
    if seen.drift:
        values = ", ".join(f"{name} {value:.3f}" for name, value in seen.drift.items())
        said.append(f"against {seen.against}: {values}")
    if seen.not_compared:
        said.append(f"not compared with production: {seen.not_compared}")
    said.append(f"retraining ({seen.decision.trigger}): {seen.decision.why}" if seen.decision else "nothing to start")
    return said
