"""An earlier release of a family put back into production: a new release with the members of the older one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from data.core.params import UserError
from flows.release import bundle, pointers, procedure
from flows.release.pointers import Pointer, title
from flows.release.procedure import Lost
from flows.release.promote import FamilyOutcome
from flows.release.stores import Stores


def rollback(stores: Stores, family: str, number: int | None, who: str, why: str = "") -> FamilyOutcome:
    """Make release `number` stand again, without a number the one that stood before; UserError if that cannot be."""
    log = pointers.log(stores.bucket, family)
    wanted = target(family, log, number)
    now = log[-1]
    pointer = replace(
        wanted,
        number=now.number + 1,
        who=who,
        why=why,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=pointers.digest(now),
        restores=wanted.number,
        procedure=procedure.identify(family, now.number + 1),
    )

    def there() -> None:
        """Nothing is uploaded; a bundle that somebody removed or changed must not be pointed at."""
        for member in wanted.members:
            bundle.verify(stores.bucket, member.model, member.bundle)

    try:
        left = procedure.carry_out(stores, "rollback", pointer, there)
    except Lost as lost:
        return FamilyOutcome(family, "lost", str(lost), lost.winner)
    versions = ", ".join(f"{member.model} v{member.version}" for member in pointer.members)
    return FamilyOutcome(family, "released", f"restores {title(wanted)}: {versions}", pointer, tuple(left))


def target(family: str, log: Sequence[Pointer], number: int | None) -> Pointer:
    """The release that a rollback restores."""
    if not log:
        raise UserError(
            f"nothing of {family} is in production, so there is nothing to roll back; remint promote {family}"
        )
    now = log[-1]
    if number is None:
        before = [pointer for pointer in log if not same(pointer, now)]
        if not before:
            raise UserError(f"{family} was never released with other models than now: there is nothing to go back to")
        return before[-1]
    if not 1 <= number <= now.number:
        there = "only #1" if now.number == 1 else f"#1 to #{now.number}"
        raise UserError(f"{family} has no release #{number}; it has {there}: remint history {family}")
    wanted = log[number - 1]
    if same(wanted, now):
        also = "" if wanted is now else f", with the same models as {title(wanted)}"
        raise UserError(f"{title(now)} is what stands in production{also}: there is nothing to roll back")
    return wanted


def same(one: Pointer, other: Pointer) -> bool:
    """Whether two releases are of the same models."""
    return {m.identity for m in one.members} == {m.identity for m in other.members}
