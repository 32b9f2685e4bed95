"""Alarms: a stage was seen with two outputs for one input. They stand in the journal until a person settles them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from data.core.params import UserError
from flows.catalogue import journal, queries
from flows.catalogue.queries import ALARM, SETTLED
from flows.catalogue.schema import Entry


@dataclass(frozen=True)
class Alarm:
    """A stage was seen with two outputs for one input: it is not deterministic, or the machines differ."""

    stage: str
    input: str  # digest of command, parameters and deps
    outputs: tuple[str, str]  # digests: seen before, seen in this run
    runs: tuple[str, str]  # where
    machines: tuple[str, str]  # classes of machine; "" where it is not known

    def __str__(self) -> str:
        before, now = (f"{output[:12]} ({run})" for output, run in zip(self.outputs, self.runs, strict=True))
        return f"{self.stage} is not deterministic: outputs {before} and {now} for the same input {self.input[:12]}"


def sound(session: Session, alarm: Alarm) -> None:
    """Put an alarm into the journal, unless the same two outputs stand there already."""
    before = select(Entry.body).where(Entry.kind == ALARM, Entry.subject == alarm.stage)
    for body in map(json.loads, session.scalars(before)):
        if body["input"] == alarm.input and set(body["outputs"]) == set(alarm.outputs):
            return
    journal.append(session, ALARM, alarm.stage, asdict(alarm))


def acknowledge(session: Session, number: int, who: str, why: str) -> queries.Logged:
    """Note that an alarm was looked into, and what it was; UserError if there is no open alarm of this number."""
    if not why.strip():
        raise UserError("an alarm is settled with a reason: remint settle NUMBER --why TEXT")
    alarms = {alarm.seq: alarm for alarm in queries.alarms(session)}
    if number not in alarms:
        entry = session.get(Entry, number)
        known = ", ".join(map(str, alarms)) or "none"
        what = "was settled already" if entry is not None and entry.kind == ALARM else "is no alarm"
        raise UserError(f"journal entry {number} {what}; open alarms: {known}")
    journal.append(session, SETTLED, str(number), {"alarm": number, "who": who, "why": why})
    return alarms[number]
