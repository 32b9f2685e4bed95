"""A promotion or rollback as a procedure that may be killed at any instant.

    intent  ->  bundles  ->  pointer  ->  catalogue  ->  MLflow  ->  git  ->  done

Writing the pointer is the one moment at which the release becomes real. What comes before it is seen by nobody; what
follows is worked out from the pointer log. So whoever finds a procedure open asks the bucket: if its pointer is there,
the rest is completed, if not, it is undone. The intent keeps what stood before in every place.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from data.core.params import UserError
from flows.catalogue import schema
from flows.pipeline.reference import PRODUCTION
from flows.release import anchors, killed, notify, pointers, projections, tags
from flows.release.pointers import Pointer, title
from flows.release.stores import Finding, Stores, opened
from flows.settings import Settings
from flows.storage.protocol import Taken

ABANDONED = timedelta(hours=1)  # a procedure of another machine is taken for dead after this


class Lost(Exception):
    """Somebody else made the release of this number first."""

    def __init__(self, winner: Pointer) -> None:
        self.winner = winner
        super().__init__(
            f"{title(winner)} was made by {winner.who} at {winner.at}, from run {winner.run}, while this promotion "
            f"was under way: nothing was changed; look at it, then again"
        )


def identify(family: str, number: int) -> str:
    """A name for a new procedure, used by nobody else."""
    return f"{family}-{number}-{uuid.uuid4().hex[:16]}"


def carry_out(stores: Stores, kind: str, pointer: Pointer, upload: Callable[[], None]) -> list[Finding]:
    """Make a release; returns what could not be made to follow it and needs a person.

    upload: puts the members' bundles into the bucket; may be called again. Lost if another release took the number; on
    any other error nothing has changed. A place that does not answer is returned, and the procedure stays open.
    """
    with killed.held(stores.settings, pointer.procedure):
        _intend(stores, kind, pointer)
        try:
            upload()
            _note(stores, pointer.procedure, "bundles")
            pointers.append(stores.bucket, pointer)
        except Taken:
            winner = pointers.read(stores.bucket, pointer.family, pointer.number)
            if winner != pointer:  # else a lost answer was repeated: it is ours
                _end(stores, pointer.procedure, "undone")
                raise Lost(winner) from None
        except Exception:
            if not _was_written(stores, pointer):
                _end(stores, pointer.procedure, "undone")
                raise
        _note(stores, pointer.procedure, "pointer", {"newest": pointer.number - 1})
        try:
            return _complete(stores, pointer)
        except UserError as error:
            advice = "when that is mended: remint doctor --repair"
            return [Finding("procedure", title(pointer), f"not followed everywhere ({error})", "", None, advice)]


def resume(stores: Stores, identifier: str) -> str:
    """Complete or undo an open procedure whose process is dead, and tell of a release; returns what was done."""
    with killed.held(stores.settings, identifier):
        with stores.catalogue.read() as session:
            row = session.get(schema.Procedure, identifier)
            text, kind = (row.pointer, row.kind) if row is not None and row.state == "open" else ("", "")
        if not text:  # killed before it was open, or after it had ended
            killed.unmark(stores.settings, identifier)
            return ""
        pointer = pointers.parse(text.encode(), f"procedure {identifier}")
        if _was_written(stores, pointer):
            _note(stores, identifier, "pointer", {"newest": pointer.number - 1})
            _complete(stores, pointer)
        else:
            _end(stores, identifier, "undone")
            return f"undone: {title(pointer)} was never made"
    words = f"{title(pointer)}: completed after its {kind} was interrupted"
    notify.tell(stores.settings, [notify.of_pointer(pointer, words, kind)])  # a dead webhook holds no lock
    return f"completed {title(pointer)}"


def abandoned(stores: Stores) -> list[str]:
    """Open procedures whose process is dead, and marks of processes that died before or after theirs was open."""
    here = socket.gethostname()
    with stores.catalogue.read() as session:
        rows = session.scalars(select(schema.Procedure).where(schema.Procedure.state == "open")).all()
        mine = {row.id for row in rows if row.before.get("host") == here}
        old = {row.id for row in rows if datetime.now(UTC) - row.created > ABANDONED}
    unmarked = {name for name in mine if not killed.mark(stores.settings, name).exists()}
    return sorted({*killed.left_behind(stores.settings), *unmarked, *(old - mine)})


def _note(stores: Stores, identifier: str, name: str, before: dict[str, Any] | None = None) -> None:
    """Note a finished step with what stood before it."""

    def write(session: Session) -> None:
        if session.get(schema.Step, (identifier, name)) is None:
            session.add(schema.Step(procedure_id=identifier, name=name, before=before or {}, done=datetime.now(UTC)))

    stores.catalogue.write(write)


def _intend(stores: Stores, kind: str, pointer: Pointer) -> None:
    log = pointers.log(stores.bucket, pointer.family)  # all of it: to go on after a broken one would fork the history
    anchors.check(stores.bucket, stores.catalogue, pointer.family, log, ends=False)
    with stores.catalogue.begin() as session:
        session.add(
            schema.Procedure(
                id=pointer.procedure,
                kind=kind,
                family=pointer.family,
                number=pointer.number,
                pointer=pointers.text(pointer),
                before=_image(stores, pointer),
                state="open",
                created=datetime.now(UTC),
            )
        )


def _image(stores: Stores, pointer: Pointer) -> dict[str, Any]:
    """What stands before the procedure, and where it works."""
    names = {member.model for member in pointer.members}
    registered = stores.mlflow().search_registered_models(max_results=1000)
    there = tags.read(stores.settings.root)
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pointer": pointer.previous,
        "aliases": {model.name: dict(model.aliases) for model in registered if model.name in names},
        "tags": {name: tags.newest_assignment(name, PRODUCTION, there) for name in sorted(names)},
    }


def _was_written(stores: Stores, pointer: Pointer) -> bool:
    """Whether the procedure's own pointer is in the bucket; a pointer of that number may be another's."""
    newest = pointers.newest(stores.bucket, pointer.family)
    if newest is None or newest.number < pointer.number:
        return False
    return pointers.read(stores.bucket, pointer.family, pointer.number) == pointer


def _complete(stores: Stores, pointer: Pointer) -> list[Finding]:
    """Everything that follows from the pointer."""

    def followed(place: str, findings: list[Finding]) -> None:
        _note(stores, pointer.procedure, place, {finding.subject: finding.says for finding in findings})

    left = projections.follow(stores, pointer.family, followed)
    _end(stores, pointer.procedure, "done")
    return left


def _end(stores: Stores, identifier: str, state: str) -> None:
    def write(session: Session) -> None:
        row = session.get(schema.Procedure, identifier)
        if row is not None:
            row.state, row.ended = state, datetime.now(UTC)

    stores.catalogue.write(write)
    killed.unmark(stores.settings, identifier)


def resume_killed_here(settings: Settings, say: Callable[[str], None]) -> None:
    """`resume_killed` if a promotion of this machine was killed; looks at one folder, which costs a run nothing."""
    if killed.left_behind(settings):
        resume_killed(settings, say)


def resume_killed(settings: Settings, say: Callable[[str], None]) -> None:
    """What every command that changes something begins with: open the stores, and end every promotion that was killed.

    UserError if one of them does not answer, or the log of releases is not as the catalogue has it.
    """
    with opened(settings) as places:
        for identifier in abandoned(places):
            if said := resume(places, identifier):
                say(f"A promotion had been interrupted: {said}.")
        for family in anchors.families(places.bucket, places.catalogue):
            anchors.check(places.bucket, places.catalogue, family, pointers.log(places.bucket, family), ends=False)
