"""The members of a release: a run's models that fit together, each packed as a bundle or taken over as it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.core.params import UserError
from flows.pipeline.reference import GTO_TAG
from flows.release import bundle
from flows.release.bundle import Bundle
from flows.release.pointers import Member, Pointer
from flows.release.registry import Registered
from flows.runs.values import RunInfo
from flows.storage.protocol import Bucket


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
                f"has {parent} {weights.get(parent)}: they do not fit together"
            )


def pack(bucket: Bucket, run: RunInfo, own: Sequence[Registered], base: Pointer | None) -> list[Packed]:
    """The members in the order of their names; a model that stands in `base` keeps its bundle."""
    standing = {member.model: member for member in base.members} if base else {}
    packed = []
    for one in sorted(own, key=lambda one: one.model.name):
        old = standing.get(one.model.name)
        if old is not None and _stands(bucket, old, one):
            packed.append(Packed(old))
            continue
        tag = one.tags[GTO_TAG]
        made = bundle.pack(run, one, tag)
        packed.append(Packed(Member(one.model.name, one.version, one.weights, tag, bundle.digest(made.manifest)), made))
    return packed


def _stands(bucket: Bucket, old: Member, one: Registered) -> bool:
    """Whether a member of the release before is this very model: weights and configuration."""
    return old.weights == one.weights and bundle.read(bucket, old.model, old.bundle).config == one.config


def publish(bucket: Bucket, packed: Sequence[Packed]) -> None:
    """Put the new bundles into the bucket; may be called again. One that was taken over must be whole."""
    for one in packed:
        if one.bundle is not None:
            bundle.publish(bucket, one.bundle)
        else:
            bundle.verify(bucket, one.member.model, one.member.bundle)
