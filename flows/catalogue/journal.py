"""The journal: what was released, approved, rolled back, reproduced, and what was alarming, in order, never changed.

Each entry's digest covers the entry and the digest before it, and the database refuses to change or delete entries. So
whoever changes the past must change everything after it, and the newest digest, which others may have noted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from flows.catalogue.schema import Entry, Head


def append(session: Session, kind: str, subject: str, body: Mapping[str, Any]) -> Entry:
    """Add an entry at the end, in a transaction of `Catalogue.begin`: there no other writer can be in between."""
    head = session.execute(select(Head).with_for_update()).scalar_one()
    entry = Entry(
        seq=head.seq + 1,
        kind=kind,
        subject=subject,
        body=json.dumps(body, sort_keys=True, ensure_ascii=False),
        at=datetime.now(UTC),
        previous=head.digest,
    )
    entry.digest = head.digest = digest(entry)
    head.seq = entry.seq
    session.add(entry)
    session.flush()
    return entry


def digest(entry: Entry) -> str:
    """SHA-256 over everything in the entry, the digest before it taken in."""
    parts = [entry.seq, entry.kind, entry.subject, entry.body, entry.at.astimezone(UTC).isoformat(), entry.previous]
    return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode()).hexdigest()


def end(session: Session) -> str:
    """The newest entry as "<number> <digest>", "" without one: to be kept elsewhere, and given to `verify` later."""
    entry = session.scalars(select(Entry).order_by(Entry.seq.desc()).limit(1)).one_or_none()
    return f"{entry.seq} {entry.digest}" if entry else ""


def verify(session: Session, seen: str = "") -> list[str]:
    """What is wrong with the journal, entry by entry; [] if it is as it was written.

    seen: what `end` said earlier.
    """
    wrong = []
    seq, last = 0, ""
    was, _, digest_then = seen.partition(" ")
    for entry in session.scalars(select(Entry).order_by(Entry.seq).execution_options(yield_per=1000)):
        if entry.seq != seq + 1:
            wrong.append(f"{_entries(seq + 1, entry.seq - 1)} missing")
        elif entry.previous != last:
            wrong.append(
                f"journal entry {entry.seq} does not follow entry {seq}: one of the two was put in or replaced"
            )
        if digest(entry) != entry.digest:
            wrong.append(f"journal entry {entry.seq} ({entry.kind} of {entry.subject}) was changed")
        if str(entry.seq) == was and entry.digest != digest_then:
            wrong.append(f"journal entry {was} was replaced since it was last looked at")
        seq, last = entry.seq, entry.digest
    if was.isdigit() and int(was) > seq:
        wrong.append(f"{_entries(seq + 1, int(was))} missing that were there when it was last looked at")
    head = session.execute(select(Head)).scalar_one_or_none()
    if head is None:
        wrong.append("the note of the journal's end is missing")
    elif head.seq > seq:
        wrong.append(f"{_entries(seq + 1, head.seq)} missing at the end")
    elif head.seq < seq:
        wrong.append(f"{_entries(head.seq + 1, seq)} put in behind the journal's end")
    elif head.digest != last:
        wrong.append(f"journal entry {seq}, the last, was replaced")
    return wrong


def _entries(first: int, last: int) -> str:
    return f"journal entry {first} is" if first == last else f"journal entries {first} to {last} are"
