"""Catalogue rows, MLflow's aliases and git tags follow the pointer log: each place is compared with it and corrected.

    for place in PLACES.values():
        for finding in place(stores, family, log): ...

A promotion corrects what it finds (`follow`), and so does `remint doctor --repair`: there is no other code that
moves an alias or assigns a tag. Every correction may be made twice, or by two processes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, selectinload

from data.core import locks
from data.core.params import UserError
from flows.catalogue import journal, schema
from flows.pipeline.reference import PREVIOUS, PRODUCTION
from flows.release import anchors, bundle, pointers, registry, tags
from flows.release.pointers import Member, Pointer, aliases, title
from flows.release.stores import Finding, Stores
from models.registry import logged_model, model_id
from models.tracking import embedded, training_run
from models.tracking.experiments import RELEASE

Log = Sequence[Pointer]  # of one family, oldest first


def follow(stores: Stores, family: str, after: Callable[[str, list[Finding]], None] | None = None) -> list[Finding]:
    """Make every place say what the log says; returns what could not be corrected.

    Whoever corrects reads the log again afterwards: a slower process cannot leave an older alias behind.
    after: called with each place's name and what was corrected there.
    """
    place = stores.settings.home / "locks" / family
    place.parent.mkdir(parents=True, exist_ok=True)
    with locks.held(place):  # one process of this machine at a time, the others wait
        while True:
            log = pointers.log(stores.bucket, family)
            anchors.check(stores.bucket, stores.catalogue, family, log)
            left: list[Finding] = []
            silent: list[str] = []
            for name, compare in PLACES.items():
                try:
                    findings = compare(stores, family, log)
                    for repair in filter(None, (finding.repair for finding in findings)):
                        repair()
                except Exception as error:  # a place that does not answer must not keep the others from following
                    silent.append(outage(error))
                    continue
                left += [finding for finding in findings if finding.repair is None]
                if after:
                    after(name, findings)
            if silent:
                raise UserError("; ".join(silent))
            newest = pointers.newest(stores.bucket, family)
            if newest is None or newest.number == log[-1].number:
                members = newest.members if newest else ()
                registry.mark(stores.settings, {(m.model, m.version): {RELEASE: title(log[-1])} for m in members})
                return left


def outage(error: Exception) -> str:
    """What a place that failed said, in one line; any other error is raised again."""
    if isinstance(error, UserError):
        return str(error)
    if type(error).__module__.startswith("mlflow."):
        return f"MLflow's registry failed: {training_run.first_line(error)}"
    raise error


def in_catalogue(stores: Stores, family: str, log: Log) -> list[Finding]:
    """Releases that the catalogue lacks, remembers otherwise or never heard of, and who made what is in production."""
    known = anchors.written(stores.catalogue, family)
    strangers = anchors.foreign(known, log)
    with stores.catalogue.read() as session:
        wanted = select(schema.Release).where(schema.Release.family == family)
        rows = {
            row.number: _facts(row) for row in session.scalars(wanted.options(selectinload(schema.Release.members)))
        }
    found = []
    for pointer in log:
        if pointer in strangers:
            found.append(anchors.stranger(pointer))
            continue
        row, should = rows.pop(pointer.number, None), _facts(_release(pointer))
        if row != should:
            says = "not there" if row is None else f"otherwise than pointer {row[0][:12]}"
            repair = partial(remember, stores, pointer)
            found.append(Finding("catalogue", title(pointer), says, f"pointer {should[0][:12]}", repair))
        elif pointer.number not in known.entries:
            advice = "compare the catalogue with a backup"
            found.append(Finding("catalogue", f"{title(pointer)} in the journal", "not there", "there", None, advice))
    return [*found, *(one for pointer in log[-1:] for m in pointer.members for one in _made_otherwise(stores, m))]


def _made_otherwise(stores: Stores, member: Member) -> Iterator[Finding]:
    """A released version that the catalogue gives to another run than its bundle does.

    As it does of what an earlier Remint released: there the bundle names the run that released the version, and so
    does the version's tag.
    """
    try:
        made = bundle.read(stores.bucket, member.model, member.bundle).lineage
    except UserError:  # the doctor has named it
        return
    with stores.catalogue.read() as session:
        row, run = _version(session, member), session.get(schema.Run, made.run)
        if row is None or run is None or run.commit != made.commit or row.run_id == run.id:
            return
        repair = partial(_give, stores, member, run.id)
        name = f"{member.model} v{member.version}"
        yield Finding("catalogue", name, f"of run {row.run_id}", f"of run {run.id}, by its bundle", repair)


def _version(session: Session, member: Member) -> schema.ModelVersion | None:
    wanted = {"name": member.model, "number": member.version, "weights": member.weights}
    return session.scalars(select(schema.ModelVersion).filter_by(**wanted)).one_or_none()


def _give(stores: Stores, member: Member, run: str) -> None:
    """Note in the catalogue which run made a version."""

    def write(session: Session) -> None:
        if row := _version(session, member):
            row.run_id = run

    stores.catalogue.write(write)


def in_mlflow(stores: Stores, family: str, log: Log) -> list[Finding]:
    """Aliases that are missing or stand on another version, models without their files, tags with other digests.

    A version that was deleted in MLflow and registered again has another number there: the alias stands on that one.
    """
    client = stores.mlflow()
    known = {model.name: dict(model.aliases) for model in client.search_registered_models(max_results=1000)}
    found = []
    for name, wanted in aliases(log).items():
        for alias, member in ((PRODUCTION, wanted.production), (PREVIOUS, wanted.previous)):
            number = known.get(name, {}).get(alias)
            says = "not set" if number is None else f"v{number}"
            if member is None:
                if number is not None:
                    repair = partial(client.delete_registered_model_alias, name, alias)
                    found.append(Finding("MLflow", f"{name}@{alias}", says, "not set", repair))
            elif says == f"v{member.version}":
                found += _digests(stores, client, member)
            else:
                run = next(pointer.run for pointer in log if member in pointer.members)
                found += _alias(stores, client, member, alias, says, f"remint promote {family} {run}")
        if wanted.production:
            found += _files(stores, client, wanted.production, f"remint promote {family} {log[-1].run}")
    return found


PLACES: dict[str, Callable[[Stores, str, Log], list[Finding]]] = {
    "catalogue": in_catalogue,
    "MLflow": in_mlflow,
    "git": tags.in_git,
}


def _alias(stores: Stores, client: Any, member: Member, alias: str, says: str, again: str) -> Iterator[Finding]:
    """An alias to be set, if this registry has the model that was released; `again` is what registers it."""
    subject = f"{member.model}@{alias}"
    version = _released(stores, client, member)
    if version is None:
        advice = f"this registry has no version with the weights of the release, {member.weights[:12]}; {again}"
        yield Finding("MLflow", subject, says, f"v{member.version}", None, advice)
    elif says != f"v{version.version}":
        repair = partial(client.set_registered_model_alias, member.model, alias, str(version.version))
        yield Finding("MLflow", subject, says, f"v{version.version}", repair)


def _released(stores: Stores, client: Any, member: Member) -> Any:
    """The version of a released model in this registry: that of its number, or of its weights and configuration."""
    there = client.search_model_versions(f"name = '{member.model}' AND version_number = {member.version}")
    if there and there[0].tags.get(training_run.WEIGHTS) == member.weights:
        return there[0]
    config = bundle.read(stores.bucket, member.model, member.bundle).config
    return registry.version_with(client, member.model, member.weights, config)


def _files(stores: Stores, client: Any, member: Member, again: str) -> Iterator[Finding]:
    """The model in MLflow that has the files of what is in production, if somebody deleted it."""
    version = _released(stores, client, member)
    if version is None:
        return
    try:
        logged_model(client, version)
    except UserError:
        name, model, uri = f"{member.model} v{version.version}", model_id(version), stores.settings.mlflow_uri
        here = embedded.database_file(uri) is not None
        repair = partial(embedded.restore_model, uri, model) if here else None
        advice = "" if here else f"delete {name} in MLflow's registry, then: {again}"
        yield Finding("MLflow", f"model of {name}", f"deleted ({model})", "there", repair, advice)


def _digests(stores: Stores, client: Any, member: Member) -> Iterator[Finding]:
    """Tags of a released version that are not the release's digests; what is loaded by name is held against them."""
    version = (member.model, str(member.version))
    there = client.get_model_version(*version).tags
    wanted = {training_run.WEIGHTS: member.weights}
    with suppress(UserError):  # the bundle is damaged, which is said elsewhere
        wanted[training_run.CONFIG] = bundle.read(stores.bucket, member.model, member.bundle).config
    for tag, digest in wanted.items():
        if there.get(tag) != digest:
            repair = partial(client.set_model_version_tag, *version, tag, digest)
            subject = f"tag {tag} of {member.model} v{member.version}"
            yield Finding("MLflow", subject, there.get(tag, "not there")[:12], digest[:12], repair)


def remember(stores: Stores, pointer: Pointer) -> None:
    """Write a release into the catalogue, and into its journal as a correction where that has it already."""
    subject, row, entry = title(pointer), schema.Release, schema.Entry

    def write(session: Session) -> None:  # the only writer: nobody else adds the row meanwhile
        same = select(row).where(row.family == pointer.family, row.number == pointer.number)
        old = session.scalars(same).one_or_none()
        if old is not None:
            if _facts(old) == _facts(_release(pointer)):
                return
            session.execute(delete(schema.Member).where(schema.Member.release_id == old.id))
            session.execute(delete(row).where(row.id == old.id))
        session.add(_release(pointer))
        named = select(entry.seq).where(entry.kind.in_(anchors.KINDS), entry.subject == subject)
        again = old is not None or session.scalar(named) is not None
        kind = "correction" if again else "rollback" if pointer.restores else "release"
        journal.append(session, kind, subject, _entry(pointer))

    stores.catalogue.write(write)


def _release(pointer: Pointer) -> schema.Release:
    """A pointer as the catalogue keeps it."""
    return schema.Release(
        family=pointer.family,
        number=pointer.number,
        restores=pointer.restores,
        pointer=pointers.digest(pointer),
        run_id=pointer.run,
        who=pointer.who,
        why=pointer.why,
        created=datetime.fromisoformat(pointer.at),
        members=[schema.Member(model=m.model, version=m.version, weights=m.weights) for m in pointer.members],
    )


def _facts(row: schema.Release) -> tuple[Any, ...]:
    """What a row says, for comparison."""
    members = sorted((m.model, m.version, m.weights) for m in row.members)
    return (row.pointer, row.restores, row.run_id, row.who, row.why, members)


def _entry(pointer: Pointer) -> dict[str, Any]:
    """What the journal keeps of a release."""
    return {
        "pointer": pointers.digest(pointer),
        "run": pointer.run,
        "commit": pointer.commit,
        "members": {m.model: {"version": m.version, "weights": m.weights} for m in pointer.members},
        "restores": pointer.restores,
        "who": pointer.who,
        "why": pointer.why,
    }
