"""Bundles in the production bucket that no release names: left by promotions that lost or were undone.

A promotion uploads before it writes its pointer, so a bundle without one may be about to get it. It is collected
only when this machine has seen it unnamed for the grace period (`garbage.json` in the home notes since when: no
other machine's clock is trusted) and no promotion is open.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress

from sqlalchemy import select
from sqlalchemy.orm import Session

from data.core.params import UserError
from flows import state
from flows.catalogue import database
from flows.catalogue.database import Catalogue
from flows.catalogue.schema import Procedure
from flows.garbage.place import Garbage, InTheWay, Kind, Place, alone
from flows.release import anchors, pointers
from flows.release.pointers import Pointer
from flows.settings import Settings
from flows.storage import bucket
from flows.storage.protocol import Bucket

KEY = re.compile(r"(bundles/([^/]+)/([0-9a-f]{64}))/.+")


def find(place: Place) -> Iterator[Garbage]:
    where = bucket.at(place.settings.production)
    orphans = _orphans(where)
    if orphans:
        catalogue = database.open(place.settings)
        with catalogue.read() as session:
            _refuse_beside_a_promotion(session)
        _refuse_a_cut_log(where, catalogue)
    for prefix, since in sorted(_note(place, orphans).items()):
        if place.old(since):
            yield Garbage(KIND.name, prefix, _bytes(where, prefix), "no release names it")


def delete(place: Place, item: Garbage) -> None:
    """In a transaction of the catalogue, so that no promotion can begin meanwhile and find it there."""
    where = bucket.at(place.settings.production)
    with database.open(place.settings).begin() as session:
        _refuse_beside_a_promotion(session)
        if item.what in _named(where):
            raise InTheWay("a release names it by now")
        # the manifest first: without it nobody takes the rest for a bundle
        for key in sorted(where.list(f"{item.what}/"), key=lambda key: not key.endswith("/manifest.json")):
            where.delete(key)


KIND = Kind("bundle", find, delete, alone)


def commits(settings: Settings) -> set[str]:
    """The commits that releases were made from."""
    found = {one.commit for one in _pointers(bucket.at(settings.production))}
    return {commit for commit in found if re.fullmatch(r"[0-9a-f]{40}", commit)}


def _pointers(where: Bucket) -> Iterator[Pointer]:
    for family in pointers.families(where):
        yield from pointers.log(where, family)


def _named(where: Bucket) -> set[str]:
    return {f"bundles/{member.model}/{member.bundle}" for one in _pointers(where) for member in one.members}


def _orphans(where: Bucket) -> set[str]:
    present = {found[1] for key in where.list("bundles/") if (found := KEY.fullmatch(key))}
    return present - _named(where)


def _note(place: Place, orphans: set[str]) -> dict[str, float]:
    """Since when each orphan has been seen here; a time that lies ahead is set to now."""
    notes = place.settings.home / "garbage.json"
    known: dict[str, float] = {}
    with suppress(UserError):  # of a damaged note the time of grace begins again
        known = state.read(notes, lambda values: {prefix: float(at) for prefix, at in values.items()}, "") or {}
    seen = {prefix: min(known.get(prefix, place.now), place.now) for prefix in orphans}
    if seen != known:
        state.write(notes, dict(sorted(seen.items())))
    return seen


def _bytes(where: Bucket, prefix: str) -> int:
    """What the bundle's manifest says it holds, 0 where it was never finished."""
    manifest = f"{prefix}/manifest.json"
    if manifest not in where.list(f"{prefix}/"):
        return 0
    return sum(file["size"] for file in json.loads(where.read(manifest))["files"])


def _refuse_a_cut_log(where: Bucket, catalogue: Catalogue) -> None:
    """InTheWay where the catalogue knows a release that the log lacks: its bundles would be taken for orphans."""
    for family in anchors.families(where, catalogue):
        for wrong in anchors.contradictions(where, family, anchors.written(catalogue, family)):
            raise InTheWay(f"{wrong}: remint doctor --repair")


def _refuse_beside_a_promotion(session: Session) -> None:
    """InTheWay while a promotion or rollback is open: it may be about to name a bundle that is there."""
    row = session.scalars(select(Procedure).where(Procedure.state == "open")).first()
    if row is not None:
        raise InTheWay(f"the {row.kind} of {row.family} to {row.number} is not finished: remint doctor --repair")
