"""The log of releases held against what the catalogue wrote down when they were made, in both directions.

Each pointer names the one before it, so the log's past cannot be rewritten unseen; its end is named by nothing in the
bucket. It is in the catalogue: the journal has the digest of every pointer, and the procedure that wrote it its text.
What the journal contradicts is followed by no place and by no command, and what it never heard of only once a person
has accepted it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select

from data.core.params import UserError
from flows.catalogue import database, schema
from flows.catalogue.database import Catalogue
from flows.release import pointers
from flows.release.pointers import Pointer, title
from flows.release.stores import Finding
from flows.settings import Settings
from flows.storage import bucket as buckets
from flows.storage.protocol import Bucket, NotThere

KINDS = ("release", "rollback", "correction")  # entries of the journal that name a pointer


@dataclass(frozen=True)
class Written:
    """What a catalogue has of a family's releases."""

    entries: Mapping[int, tuple[str, int]]  # by number: the pointer's digest, and the journal's first entry with it
    rows: Mapping[int, str]  # by number: the pointer's digest in the table of releases
    texts: Mapping[str, str]  # by procedure: the pointer that it wrote


def families(bucket: Bucket, catalogue: Catalogue) -> list[str]:
    """The families that were released, as far as bucket or catalogue know."""
    with catalogue.read() as session:
        kinds = select(schema.Entry.subject).where(schema.Entry.kind.in_(KINDS))
        named = {subject.rpartition(" #")[0] for subject in session.scalars(kinds)}
        named |= set(session.scalars(select(schema.Release.family).distinct()))
    return sorted({*pointers.families(bucket), *named})


def written(catalogue: Catalogue, family: str) -> Written:
    """What the catalogue has of a family."""
    entry, release, procedure = schema.Entry, schema.Release, schema.Procedure
    named = select(entry.subject, entry.body, entry.seq).where(
        entry.kind.in_(KINDS), entry.subject.startswith(f"{family} #", autoescape=True)
    )
    entries: dict[int, tuple[str, int]] = {}
    with catalogue.read() as session:
        for subject, body, seq in session.execute(named.order_by(entry.seq)):
            if found := re.fullmatch(rf"{re.escape(family)} #(\d+)", subject):
                entries.setdefault(int(found[1]), (_pointer_of(body), seq))
        rows = session.execute(select(release.number, release.pointer).where(release.family == family)).tuples().all()
        texts = session.execute(select(procedure.id, procedure.pointer).where(procedure.family == family)).tuples()
        return Written(entries, dict(rows), dict(texts.all()))


def contradictions(bucket: Bucket, family: str, known: Written, log: Sequence[Pointer] | None = None) -> list[Finding]:
    """Releases that the bucket lacks or has otherwise than the catalogue.

    log: what was read of it, its last releases at least; without one each pointer is read as it lies there.
    """
    digests = {one.number: pointers.digest(one) for one in log} if log is not None else _raw(bucket, family)
    first = log[0].number if log else 1
    should = {number: (digest, "the catalogue") for number, digest in known.rows.items()}
    should |= {number: (digest, f"journal entry {seq}") for number, (digest, seq) in known.entries.items()}
    texts = {_sha256(text.encode()): text for text in known.texts.values()}
    found = []
    for number, (digest, by) in sorted(should.items()):
        if number < first or digests.get(number) == digest:
            continue
        text, key, there = texts.get(digest), pointers.key(family, number), digests.get(number)
        where, repair = f"{bucket.name}/{key}", None
        advice = f"bring {where} back from a copy of the bucket"
        if text and there:
            advice = f"{where} was changed: move it away, then remint doctor --repair"
        elif text:
            advice = f"the catalogue has its text for {where}"
            repair = partial(bucket.create, key, text.encode())
        says = f"pointer {there[:12]}" if there else "not there"
        found.append(Finding("bucket", f"{family} #{number}", says, f"pointer {digest[:12]}, by {by}", repair, advice))
    return found


def foreign(known: Written, log: Sequence[Pointer]) -> list[Pointer]:
    """Releases of which this catalogue never heard though it made others of the family: another's, or forged."""
    if not known.entries:  # lost, or new: it is filled from the log
        return []
    return [
        one
        for one in log
        if one.number not in known.entries
        and one.number not in known.rows
        and known.texts.get(one.procedure) != pointers.text(one)
    ]


def stranger(pointer: Pointer) -> Finding:
    """What the doctor says of a release of which the catalogue never heard."""
    named, digest = f"{pointer.family}@{pointer.number}", pointers.digest(pointer)[:12]
    says = f"pointer {digest} by {pointer.who} of {pointer.at}, which no procedure of this catalogue made"
    advice = f"if you know who made it: remint doctor --accept {named}; else: remint rollback {pointer.family}"
    return Finding("bucket", title(pointer), says, "in the journal", None, advice)


def check(bucket: Bucket, catalogue: Catalogue, family: str, log: Sequence[Pointer], ends: bool = True) -> None:
    """UserError if the catalogue contradicts the log or, with `ends`, if it never heard of the newest release."""
    known = written(catalogue, family)
    wrong = contradictions(bucket, family, known, log)
    if ends and log and log[-1] in foreign(known, log):
        wrong.append(stranger(log[-1]))
    if wrong:
        raise UserError(
            f"{wrong[0]}: what is in production is not sure, and nothing is done with it; remint doctor, "
            "or correct REMINT_PRODUCTION or REMINT_CATALOGUE if they are of two projects"
        )


def hold(settings: Settings, family: str, log: Sequence[Pointer]) -> None:
    """`check` where there is a catalogue; none is made to answer a question."""
    if database.exists(settings):
        check(buckets.at(settings.production), database.open(settings), family, log)


def _raw(bucket: Bucket, family: str) -> dict[int, str]:
    """The digests of all pointers as they lie in the bucket, whole or not."""
    found = {}
    for key in bucket.list(f"releases/{family}/"):
        if number := re.fullmatch(r"(\d{6,})\.json", key.rpartition("/")[2]):
            with suppress(NotThere):
                found[int(number[1])] = _sha256(bucket.read(key))
    return found


def _pointer_of(body: str) -> str:
    try:
        return str(json.loads(body)["pointer"])
    except (ValueError, KeyError, TypeError):
        return ""


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
