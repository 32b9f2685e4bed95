"""Catalogue rows, MLflow's aliases and git tags follow the pointer log: each place is compared with it and corrected.

    for place in PLACES.values():
        for finding in place(stores, family, log): ...

A promotion corrects what it finds (`follow`), and so does `remint doctor --repair`: there is no other code that
moves an alias or assigns a tag. Every correction may be made twice, or by two processes at once.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, selectinload

from data.core.params import UserError
from flows import repository
from flows.catalogue import journal, schema
from flows.pipeline.reference import PREVIOUS, PRODUCTION
from flows.release import anchors, bundle, pointers, registry, tags
from flows.release.findings import Finding
from flows.release.pointers import Member, Pointer
from flows.release.stores import Stores
from models.registry import logged_model, model_id
from models.tracking import embedded, training_run
from models.tracking.experiments import RELEASE

Log = Sequence[Pointer]  # of one family, oldest first


@dataclass(frozen=True)
class Standing:
    """What the log says of one model: the version in production, and the one that stood before it."""

    production: Member | None
    previous: Member | None


def standing(log: Log) -> dict[str, Standing]:
    """Every model that was ever released with the family; one that left it has no version in production."""
    found = {}
    for name in sorted({member.model for pointer in log for member in pointer.members}):
        line = [next((m for m in pointer.members if m.model == name), None) for pointer in log]
        now = line[-1]
        before = [m for m in line[:-1] if m is not None and (now is None or m.identity != now.identity)]
        found[name] = Standing(now, before[-1] if before else None)
    return found


def title(pointer: Pointer) -> str:
    """A release as people call it: "images #3"."""
    return f"{pointer.family} #{pointer.number}"


def follow(stores: Stores, family: str, after: Callable[[str, list[Finding]], None] | None = None) -> list[Finding]:
    """Make every place say what the log says; returns what could not be corrected.

    Whoever corrects reads the log again afterwards: a slower process cannot leave an older alias behind.
    after: called with each place's name and what was corrected there.
    """
    with _alone(stores, family):
        while True:
            log = pointers.log(stores.bucket, family)
            anchors.check(stores.bucket, stores.catalogue, family, log)
            left: list[Finding] = []
            silent: list[str] = []
            for name, compare in PLACES.items():
                try:
                    findings = correct(compare(stores, family, log))
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


def correct(findings: list[Finding]) -> list[Finding]:
    """Make every repair that there is; returns the findings as they were."""
    for finding in findings:
        if finding.repair:
            finding.repair()
    return findings


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
    for name, wanted in standing(log).items():
        for alias, member in ((PRODUCTION, wanted.production), (PREVIOUS, wanted.previous)):
            says = known.get(name, {}).get(alias)
            if (None if says is None else int(says)) == (member.version if member else None):
                found += _digests(stores, client, member) if member else []
                continue
            subject = f"{name}@{alias}"
            words = "not set" if says is None else f"v{says}"
            if member is None:
                repair = partial(client.delete_registered_model_alias, name, alias)
                found.append(Finding("MLflow", subject, words, "not set", repair))
            else:
                run = next(pointer.run for pointer in log if member in pointer.members)
                found += _alias(stores, client, member, alias, words, f"remint promote {family} {run}")
        if wanted.production:
            found += _files(stores, client, wanted.production, family, log[-1].run)
    return found


def in_git(stores: Stores, family: str, log: Log) -> list[Finding]:
    """Version tags of released models that are gone or moved, and stages that are not assigned as released."""
    root = stores.settings.root
    there = tags.read(root)
    found = []
    for name, wanted in standing(log).items():
        member = wanted.production
        if member is None:
            if tags.assigned(name, PRODUCTION, there):
                repair = partial(_unassign, stores, name, title(log[-1]))
                found.append(Finding("git", f"{name}#{PRODUCTION}", "assigned", "not assigned", repair))
            continue
        commit = commit_of(stores, member)
        if there.get(member.tag) != commit:
            made = bundle.read(stores.bucket, name, member.bundle)
            message = tags.message(name, member.version, made.lineage.tag, member.weights, made.config)
            found.append(tag_finding(stores, member.tag, message, there.get(member.tag), commit))
        if tags.assigned(name, PRODUCTION, there) != commit:
            says = _short(tags.assigned(name, PRODUCTION, there))
            should = f"{_short(commit)} ({member.tag})"
            if not exists(stores, commit):
                found.append(Finding("git", f"{name}#{PRODUCTION}", says, should, None, _FETCH))
                continue
            repair = partial(_assign, stores, member, commit, title(log[-1]))
            found.append(Finding("git", f"{name}#{PRODUCTION}", says, should, repair))
    return found


PLACES: dict[str, Callable[[Stores, str, Log], list[Finding]]] = {
    "catalogue": in_catalogue,
    "MLflow": in_mlflow,
    "git": in_git,
}
_FETCH = "this clone does not have the commit: git fetch --tags, with --unshallow in a shallow clone"


def commit_of(stores: Stores, member: Member) -> str:
    """The commit of record of a released version, by its bundle: that cannot be changed unseen."""
    return bundle.read(stores.bucket, member.model, member.bundle).lineage.commit


def exists(stores: Stores, commit: str) -> bool:
    """Whether this clone has a commit."""
    root = stores.settings.root
    return repository.git(root, "cat-file", "-t", commit, check=False) == "commit"


def tag_finding(stores: Stores, tag: str, message: str, says: str | None, commit: str) -> Finding:
    """A tag that is missing, to be put back where this clone has the commit; or one that stands on another commit.

    That one is a person's to remove: whoever fetched it relies on it, and nothing here ever moves a tag.
    """
    if says is not None:
        advice = f"somebody moved it; git tag -d '{tag}', then: remint doctor --repair"
        return Finding("git", tag, _short(says), _short(commit), None, advice)
    known = exists(stores, commit)
    repair = partial(_put_back, stores.settings.root, tag, message, commit) if known else None
    return Finding("git", tag, _short(says), _short(commit), repair, "" if known else _FETCH)


def _put_back(root: Path, tag: str, message: str, commit: str) -> None:
    """Make a tag again, unless another process has just done it."""
    if tags.read(root).get(tag) != commit:
        repository.tag(root, tag, message, commit)


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


def _files(stores: Stores, client: Any, member: Member, family: str, run: str) -> Iterator[Finding]:
    """The model in MLflow that has the files of what is in production, if somebody deleted it."""
    version = _released(stores, client, member)
    if version is None:
        return
    try:
        logged_model(client, version)
    except UserError:
        name, model = f"{member.model} v{version.version}", model_id(version)
        repair = partial(embedded.restore_model, stores.settings.mlflow_uri, model)
        advice = f"delete {name} in MLflow's registry, then: remint promote {family} {run}"
        if embedded.database_file(stores.settings.mlflow_uri):
            yield Finding("MLflow", f"model of {name}", f"deleted ({model})", "there", repair)
        else:
            yield Finding("MLflow", f"model of {name}", f"deleted ({model})", "there", None, advice)


def _digests(stores: Stores, client: Any, member: Member) -> list[Finding]:
    """Tags of a released version that are not the release's digests; what is loaded by name is held against them."""
    there = client.get_model_version(member.model, str(member.version)).tags
    wanted = {training_run.WEIGHTS: member.weights}
    with suppress(UserError):  # the bundle is damaged, which is said elsewhere
        wanted[training_run.CONFIG] = bundle.read(stores.bucket, member.model, member.bundle).config
    found = []
    for tag, digest in wanted.items():
        if there.get(tag) != digest:
            says = there[tag][:12] if tag in there else "not there"
            repair = partial(client.set_model_version_tag, member.model, str(member.version), tag, digest)
            subject = f"tag {tag} of {member.model} v{member.version}"
            found.append(Finding("MLflow", subject, says, digest[:12], repair))
    return found


def _assign(stores: Stores, member: Member, commit: str, release: str) -> None:
    """Assign a model's stage to a commit, unless another process has just done it."""
    there = tags.read(stores.settings.root)
    if tags.assigned(member.model, PRODUCTION, there) != commit:
        name = tags.next_assignment(member.model, PRODUCTION, there)
        repository.tag(stores.settings.root, name, f"{member.tag} to {PRODUCTION}: {release}", commit)


def _unassign(stores: Stores, name: str, release: str) -> None:
    there = tags.read(stores.settings.root)
    commit = tags.assigned(name, PRODUCTION, there)
    if commit:
        tag = tags.next_assignment(name, f"{PRODUCTION}!", there)
        repository.tag(stores.settings.root, tag, f"{name} is not part of {release}", commit)


def remember(stores: Stores, pointer: Pointer) -> None:
    """Write a release into the catalogue, and into its journal as a correction where that has it already."""

    def write(session: Session) -> None:  # the only writer: nobody else adds the row meanwhile
        old = _row(session, pointer)
        if old is not None and _facts(old) == _facts(_release(pointer)):
            return
        if old is not None:
            session.execute(delete(schema.Member).where(schema.Member.release_id == old.id))
            session.execute(delete(schema.Release).where(schema.Release.id == old.id))
        session.add(_release(pointer))
        again = old is not None or session.scalar(_entries_of(pointer)) is not None
        kind = "correction" if again else "rollback" if pointer.restores else "release"
        journal.append(session, kind, title(pointer), _entry(pointer))

    stores.catalogue.write(write)


def _entries_of(pointer: Pointer) -> Any:
    return select(schema.Entry.seq).where(schema.Entry.kind.in_(anchors.KINDS), schema.Entry.subject == title(pointer))


def _row(session: Session, pointer: Pointer) -> schema.Release | None:
    wanted = select(schema.Release).filter_by(family=pointer.family, number=pointer.number)
    return session.scalars(wanted).one_or_none()


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


def _short(commit: str | None) -> str:
    return f"at {commit[:12]}" if commit else "not there"


@contextmanager
def _alone(stores: Stores, family: str) -> Iterator[None]:
    """One process of this machine at a time corrects a family's places; the others wait for it."""
    folder = stores.settings.home / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / family).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
