"""What the release log and the catalogue say of a version: the commit that made it, which a moved tag cannot change."""

from __future__ import annotations

from dataclasses import dataclass

from flows.settings import Settings


@dataclass(frozen=True)
class Claim:
    """What a place other than git says of a version."""

    tag: str  # "tokenizer@v3.0.0"
    commit: str
    weights: str  # sha256 of model.safetensors
    by: str  # "images #3 in /srv/production", "the catalogue"
    bundle: str = ""  # of the release


def of_release(settings: Settings, name: str, family: str, alias: str) -> Claim | None:
    """The version that holds an alias by the newest pointer; None if nothing was released or nothing holds it."""
    from flows.release import anchors, bundle, pointers, projections
    from flows.storage import bucket

    place = bucket.open(settings)
    log = pointers.log(place, family)
    anchors.hold(settings, family, log)
    stands = projections.standing(log).get(name)
    member = getattr(stands, alias, None)
    if member is None:
        return None
    lineage = bundle.read(place, name, member.bundle).lineage
    by = f"{projections.title(log[-1])} in {place.name}"
    return Claim(member.tag, lineage.commit, member.weights, by, member.bundle)


def of_catalogue(settings: Settings, tag: str) -> Claim | None:
    """What the catalogue has for a version's tag. None is made to answer a question."""
    from flows.catalogue import database, queries

    if not database.exists(settings):
        return None
    with database.open(settings).read() as session:
        found = queries.record_of(session, tag)
    return Claim(tag, *found, "the catalogue") if found else None
