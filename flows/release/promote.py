"""A run's models promoted: each family as a whole, its members packed as bundles or taken over as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from data.core.params import UserError, near
from flows.catalogue.registered import Registered
from flows.pipeline.families import Model, models_of
from flows.pipeline.reference import GTO_TAG
from flows.pipeline.run import RunInfo
from flows.release import bundle, pointers, procedure
from flows.release.bundle import Bundle
from flows.release.gates.decision import Decision
from flows.release.pointers import Member, Pointer, changes, title
from flows.release.procedure import Lost
from flows.release.stores import Finding, Stores
from flows.settings import Settings
from flows.storage.protocol import Bucket

State = Literal["released", "standing", "refused", "waiting", "lost"]


@dataclass(frozen=True)
class FamilyOutcome:
    """What became of a family of a run."""

    family: str
    state: State
    reason: str  # one line for people
    release: Pointer | None = None  # what is in production now
    left: tuple[Finding, ...] = ()  # what could not follow the release and needs a person

    def to_json(self) -> dict[str, Any]:
        """The outcome as plain JSON values."""
        release = asdict(self.release) if self.release else None
        about = {"family": self.family, "state": self.state, "reason": self.reason, "release": release}
        return {**about, "left": [str(finding) for finding in self.left]}

    def __str__(self) -> str:
        if self.release is None or self.state in ("released", "standing"):
            return f"{title(self.release) if self.release else self.family}: {self.reason}"
        return f"{self.family}: {self.reason}; {title(self.release)} stands"


def newest(stores: Stores, families: Sequence[str]) -> dict[str, Pointer | None]:
    """What is in production now; to be asked before the gates are, whose verdict holds for it and nothing newer."""
    return {family: pointers.newest(stores.bucket, family) for family in families}


def promote(
    stores: Stores,
    run: RunInfo,
    family: str,
    registered: Sequence[Registered],
    decisions: Sequence[Decision],
    base: Pointer | None,
    who: str,
    why: str = "",
) -> FamilyOutcome:
    """Promote one family of a run if the gates let all of it pass.

    base: what was in production when the gates judged. If it is not any more, nothing is promoted and the outcome
    says who was first.
    """
    own = [one for one in registered if one.model.family == family]
    wanted = [model for model in models_of(run.workspace) if model.family == family]
    verdict = judged(family, wanted, own, decisions, base)
    if verdict is not None:
        return verdict
    check_fit(own)
    packed, number = pack(stores.bucket, run, own, base), base.number + 1 if base else 1
    pointer = Pointer(
        family=family,
        number=number,
        members=tuple(one.member for one in packed),
        run=run.id,
        commit=run.commit,
        who=who,
        why=why,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=pointers.digest(base) if base else "",
        procedure=procedure.identify(family, number),
    )
    try:
        left = procedure.carry_out(stores, "promote", pointer, lambda: publish(stores.bucket, packed))
    except Lost as lost:
        return FamilyOutcome(family, "lost", str(lost), lost.winner)
    return FamilyOutcome(family, "released", f"released, {changes(base, pointer)}", pointer, tuple(left))


def judged(
    family: str,
    wanted: Sequence[Model],
    own: Sequence[Registered],
    decisions: Sequence[Decision],
    base: Pointer | None,
) -> FamilyOutcome | None:
    """The end of a family that is not to be released, None of one that is."""
    absent = sorted({model.name for model in wanted} - {one.model.name for one in own})
    if absent:
        return FamilyOutcome(
            family, "refused", f"the run has no {', '.join(absent)}, and a family is released whole", base
        )
    names = {one.model.name for one in own}
    about = [one for one in decisions if one.model in names]
    if base and names == {member.model for member in base.members} == {one.model for one in about if one.unchanged}:
        reason = f"these models stand already, released by {base.who} from run {base.run}"
        return FamilyOutcome(family, "standing", reason, base)
    refused = [f"{one.model} v{one.version}: {one.reason}" for one in about if one.verdict == "refused"]
    if refused:
        return FamilyOutcome(family, "refused", f"not released: {'; '.join(refused)}", base)
    waiting = [f"{one.model} v{one.version} {one.reason}" for one in about if one.verdict == "waiting"]
    if waiting:
        return FamilyOutcome(family, "waiting", f"not released yet: {'; '.join(waiting)}", base)
    return None


def check_family(settings: Settings, bucket: Bucket, family: str) -> None:
    """UserError for a family that neither the graph here nor the bucket knows."""
    here = {model.family for model in models_of(settings.root)}
    known = sorted({*here, *pointers.families(bucket)})
    if family not in known:
        raise UserError(f"no family '{family}'{near(family, known)}")


@dataclass(frozen=True)
class Packed:
    """A member, and its bundle if it is not in the bucket yet."""

    member: Member
    bundle: Bundle | None = None


def check_fit(own: Sequence[Registered]) -> None:
    """UserError unless every model stands beside the very weights that it was trained with."""
    weights = {one.model.name: one.weights for one in own}
    for one in own:
        parent = one.model.bound_to
        if parent and one.parents.get(parent) != weights.get(parent):
            raise UserError(
                f"{one.model.name} v{one.version} was trained with {parent} {one.parents.get(parent)}, and the release "
                f"has {parent} {weights.get(parent)}: they do not fit together; retrain"
            )


def pack(bucket: Bucket, run: RunInfo, own: Sequence[Registered], base: Pointer | None) -> list[Packed]:
    """The members in the order of their names; a model that stands in `base` keeps its bundle."""
    standing = {member.model: member for member in base.members} if base else {}
    packed = []
    for one in sorted(own, key=lambda one: one.model.name):
        name, old = one.model.name, standing.get(one.model.name)
        if old and old.weights == one.weights and bundle.read(bucket, name, old.bundle).config == one.config:
            packed.append(Packed(old))
            continue
        made = bundle.pack(run, one, one.tags[GTO_TAG])
        member = Member(name, one.version, one.weights, one.tags[GTO_TAG], bundle.digest(made.manifest))
        packed.append(Packed(member, made))
    return packed


def publish(bucket: Bucket, packed: Sequence[Packed]) -> None:
    """Put the new bundles into the bucket; may be called again. One that was taken over must be whole."""
    for one in packed:
        if one.bundle is not None:
            bundle.publish(bucket, one.bundle)
        else:
            bundle.verify(bucket, one.member.model, one.member.bundle)
