"""Decisions in the catalogue, and the approvals of people in its journal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from data.core.params import UserError
from flows import repository
from flows.catalogue import journal, reference
from flows.catalogue.database import Catalogue
from flows.catalogue.schema import Decision as Row
from flows.catalogue.schema import Entry, ModelVersion
from flows.release.gates.decision import APPROVAL, Decision, Rule, apply_approvals


@dataclass(frozen=True)
class Approval:
    """Who let a version pass, why, and when."""

    weights: str
    who: str
    why: str
    at: datetime


@dataclass(frozen=True)
class Stored:
    """A decision as the catalogue has it."""

    decision: Decision
    run: str
    at: datetime


def store(catalogue: Catalogue, run: str, decisions: Iterable[Decision]) -> None:
    """Store every decision about a version that is not in production already, with all its numbers."""
    with catalogue.begin() as session:
        for one in decisions:
            if not one.unchanged:
                _add(session, run, _version(session, one), one)


def newest(session: Session, version: ModelVersion) -> Stored | None:
    """The last decision about a version, None if it was never judged."""
    row = session.scalar(select(Row).where(Row.version_id == version.id).order_by(Row.id.desc()).limit(1))
    return None if row is None else _stored(row, version)


def show(session: Session, model: str, version: str) -> tuple[Stored, Approval | None]:
    """The last decision about a version and its approval; UserError for what is unknown or was never judged."""
    wanted = reference.find(session, f"{model}@{version}")
    judged = newest(session, wanted)
    if judged is None:
        raise UserError(f"{wanted.name} v{wanted.number} was never judged; remint retrain judges what it makes")
    return judged, approvals(session, [(wanted.name, wanted.number)]).get(wanted.weights)


def runs_of(session: Session, family: str) -> Sequence[str]:
    """The runs of which models of a family were judged."""
    wanted = select(Row.run_id).distinct().join(ModelVersion, Row.version_id == ModelVersion.id)
    return session.scalars(wanted.where(ModelVersion.family == family)).all()


def of_run(session: Session, run: str) -> list[Stored]:
    """The last decision about each version that was judged in a run, by model."""
    query = select(Row, ModelVersion).join(ModelVersion, Row.version_id == ModelVersion.id).where(Row.run_id == run)
    found = {version.name: _stored(row, version) for row, version in session.execute(query.order_by(Row.id)).tuples()}
    return [found[name] for name in sorted(found)]


def approvals(session: Session, versions: Iterable[tuple[str, int]]) -> dict[str, Approval]:
    """By weights digest, what people approved of these (model, version) pairs."""
    subjects = [_subject(model, number) for model, number in versions]
    entries = session.scalars(select(Entry).where(Entry.kind == APPROVAL, Entry.subject.in_(subjects)))
    found = {}
    for entry in entries:
        body = json.loads(entry.body)
        found[body["weights"]] = Approval(body["weights"], body["who"], body["why"], entry.at)
    return found


def approve(catalogue: Catalogue, model: str, version: str, who: str, why: str) -> list[Stored]:
    """Approve a version that waits for it; returns the decisions of its release as they are now.

    UserError for a version that is unknown, was never judged, was refused, needs no approval or has it.
    """
    if not why.strip():
        raise UserError("an approval says why: remint approve MODEL VERSION --why TEXT")
    with catalogue.begin() as session:
        wanted = reference.find(session, f"{model}@{version}")
        name = f"{wanted.name} v{wanted.number}"
        judged = _must_wait(session, wanted, name)
        body = {"model": wanted.name, "version": wanted.number, "weights": wanted.weights, "who": who, "why": why}
        journal.append(session, APPROVAL, _subject(wanted.name, wanted.number), body)
        before = [one.decision for one in of_run(session, judged.run) if one.decision.family == wanted.family]
        given = approvals(session, [(one.model, one.version) for one in before])
        for now in apply_approvals(before, given):
            if now not in before:
                _add(session, judged.run, _version(session, now), now)
        return [one for one in of_run(session, judged.run) if one.decision.family == wanted.family]


def approver(root: Path) -> str:
    """Who is at the keyboard, as git knows them: "Ada Lovelace <ada@example.org>"."""
    name, email = (repository.git(root, "config", f"user.{part}", check=False) for part in ("name", "email"))
    if not name or not email:
        raise UserError(
            "an approval names who gave it, and git does not know you; "
            'git config --global user.name "Your Name" && git config --global user.email you@example.org'
        )
    return f"{name} <{email}>"


def _must_wait(session: Session, wanted: ModelVersion, name: str) -> Stored:
    """The decision about a version that waits for an approval of its own."""
    judged = newest(session, wanted)
    if judged is None:
        raise UserError(f"{name} was never judged, so there is nothing to approve; remint retrain judges what it makes")
    given = approvals(session, [(wanted.name, wanted.number)]).get(wanted.weights)
    if given is not None:
        raise UserError(f"{name} was approved already: by {given.who} on {given.at:%Y-%m-%d %H:%M} UTC ({given.why})")
    decision = judged.decision
    if decision.verdict == "refused":
        raise UserError(f"{name} was refused, and an approval does not change that: {decision.reason}")
    if not any(rule.name == APPROVAL for rule in decision.failed):
        what = f"it {decision.reason}" if decision.waiting else f"its gate asks for none ({decision.verdict})"
        raise UserError(f"{name} needs no approval: {what}")
    return judged


def _subject(model: str, number: int) -> str:
    return f"{model}@v{number}"


def _version(session: Session, one: Decision) -> ModelVersion:
    version = session.scalar(select(ModelVersion).filter_by(name=one.model, number=one.version))
    if version is None:
        raise UserError(
            f"{one.model} v{one.version} is in MLflow and not in the catalogue, where its decision belongs; "
            "remint doctor --repair brings them together"
        )
    return version


def _add(session: Session, run: str, version: ModelVersion, one: Decision) -> None:
    rules = [_plain(rule) for rule in one.rules]
    about = {"against": one.replaces, "verdict": one.verdict, "reason": one.reason, "rules": rules}
    session.add(Row(version_id=version.id, run_id=run, created=datetime.now(UTC), **about))
    session.flush()


def _plain(rule: Rule) -> dict[str, Any]:
    """A rule as JSON; what is no finite number has no place there, and is kept as text."""
    values = asdict(rule)
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _stored(row: Row, version: ModelVersion) -> Stored:
    rules, passed = tuple(Rule(**values) for values in row.rules), row.verdict == "passed"
    about = (row.reason, rules, row.against, version.weights, version.family)
    return Stored(Decision(version.name, version.number, passed, *about), row.run_id, row.created)
