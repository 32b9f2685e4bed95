"""From what a person writes, `tokenizer@production`, `tokenizer@v3` or `tokenizer`, to a version of the catalogue."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from data.core.params import UserError, near
from flows.catalogue.schema import Member, ModelVersion, Release
from flows.pipeline import reference as names
from flows.pipeline.reference import PREVIOUS, PRODUCTION


def find(session: Session, reference: str) -> ModelVersion:
    """The version that a reference names; without "@...", what is in production, else the newest.

    UserError for a malformed reference, an unknown model, an alias that nothing has, or a version that is not there.
    """
    model, which = names.parse(reference)
    known = session.scalars(select(ModelVersion.name).distinct().order_by(ModelVersion.name)).all()
    if model not in known:
        raise UserError(f"no model '{model}' in the catalogue{near(model, known)}")
    number = _number(session, model, which)
    found = session.scalar(select(ModelVersion).where(ModelVersion.name == model, ModelVersion.number == number))
    if found is None:
        newest = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.name == model))
        raise UserError(f"{model} has no version {number} in the catalogue; the newest is v{newest}")
    return found


def _number(session: Session, model: str, which: str | None) -> int:
    standing = _standing(session, model)
    if which is None:
        newest = select(func.max(ModelVersion.number)).where(ModelVersion.name == model)
        return standing.get(PRODUCTION) or session.scalars(newest).one()
    number = names.number(which)
    if number is not None:
        return number
    if which not in (PRODUCTION, PREVIOUS):
        raise UserError(f"{model} has no alias '{which}'{near(which, (PRODUCTION, PREVIOUS, 'v1, v2, ...'))}")
    if which not in standing:
        raise UserError(f"{model} has no {which} version: no release holds one; name a version, as {model}@v1")
    return standing[which]


def _standing(session: Session, model: str) -> dict[str, int]:
    """What is in production, and the last one before it of other weights, as the release log has it.

    A model that the newest release of its family does not hold is not in production any more.
    """
    family = select(ModelVersion.family).where(ModelVersion.name == model).limit(1).scalar_subquery()
    log = session.execute(
        select(Release.number, Member.version, Member.weights)
        .join(Member)
        .where(Member.model == model, Release.family == family)
        .order_by(Release.number.desc())
    ).all()
    newest = session.scalar(select(func.max(Release.number)).where(Release.family == family))
    now = log[0] if log and log[0].number == newest else None
    before = next((one for one in log if now is None or one.weights != now.weights), None)
    standing = {PRODUCTION: now, PREVIOUS: before}
    return {alias: one.version for alias, one in standing.items() if one is not None}
