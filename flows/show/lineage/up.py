"""Traces from a data version, a photograph or a commit up to every model version that contains it.

A version contains what it was made from, and what its parents contain: a student contains a photograph through the
pseudo-labels' data, a generator through its tokenizer. "In production" is decided by weights, so that a version whose
bytes went out under another number is found too.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Column, MetaData, Select, Table, Text, and_, insert, or_, select
from sqlalchemy.orm import Session, aliased

from data.core import digests
from data.core.params import UserError, near
from flows import repository
from flows.catalogue.schema import DataVersion, Edge, Member, ModelVersion, Photograph, Release, Run
from flows.show.lineage.down import NEWEST, data_versions
from flows.show.lineage.values import Holder, Trace

PHOTO_DIGITS = 12  # a photograph's id: so many hex digits of the sha256 of its file, see data.photos.collect
SHORTEST = 4  # a shorter prefix is no digest
HEX = re.compile(r"[0-9a-f]+(\.dir)?")


def of_data(session: Session, digest: str) -> Trace:
    """Everything that contains a data version, given by its digest or the start of it."""
    found = session.scalars(
        select(DataVersion).where(DataVersion.digest.startswith(digest, autoescape=True)).order_by(DataVersion.id)
    ).all()
    if len(digest) < SHORTEST or not found:
        known = session.execute(select(DataVersion.stage, DataVersion.digest).order_by(DataVersion.id.desc()).limit(8))
        names = ", ".join(f"{stage} {text[:PHOTO_DIGITS]}" for stage, text in known) or "none"
        raise UserError(f"no data version '{digest}' (at least {SHORTEST} digits of its digest); the newest: {names}")
    if len({one.digest for one in found}) > 1:
        raise UserError(
            f"'{digest}' is ambiguous: {_some([f'{one.stage} {one.digest[:16]}' for one in found])}; give more digits"
        )
    ids = [one.id for one in found]
    asked = " and ".join(f"{one.stage} {one.digest}" for one in found)
    direct = _with_data().where(DataVersion.id.in_(ids))
    data = data_versions(session, DataVersion.id.in_(ids))
    return Trace(f"data version {asked}", data, _holders(session, direct), _unknown(session))


def of_photo(session: Session, photo: str, here: Path) -> Trace:
    """Everything that contains a photograph, given as a file, the start of its digest, or its file name.

    All photographs of one name are traced together: whoever withdraws one by name must miss none. UserError for a name
    or digest that no data version knows; a file that none contains gives a trace without data.
    """
    path = here / photo
    if path.is_file():
        ids = _known_photos(session, Photograph.photo == _digest(path))
        if not ids:
            notes = (*_alike(session, path.name), *_unknown(session))
            return Trace(f"photograph {photo} (digest {_digest(path)})", (), (), notes)
    else:
        ids = _by_digest(session, photo) or _known_photos(session, Photograph.name == photo)
    if not ids:
        names = session.scalars(select(Photograph.name).distinct().order_by(Photograph.name)).all()
        hint = near(photo, names) if len(names) <= 10 or "did you mean" in near(photo, names) else ""
        raise UserError(f"no data version holds a photograph of the name or digest '{photo}', nor is it a file{hint}")
    several = (f"{len(ids)} photographs have the name {photo}: all of them are traced",) if len(ids) > 1 else ()
    data_ids = session.scalars(select(Photograph.data_id).where(Photograph.photo.in_(ids)).distinct()).all()
    direct = _with_data().join(Photograph, Photograph.data_id == DataVersion.id).where(Photograph.photo.in_(ids))
    asked = ", ".join(f"{' or '.join(names)} (digest {digest})" for digest, names in ids.items())
    data = data_versions(session, DataVersion.id.in_(data_ids))
    return Trace(f"photograph {asked}", data, _holders(session, direct), (*several, *_unknown(session)))


def of_commit(session: Session, root: Path, revision: str) -> Trace:
    """Everything made by a run whose code holds a commit: the run's own commit or one before it."""
    commit = _resolve(root, revision)
    runs = session.execute(select(Run.id, Run.commit, Run.base_commit)).all()
    contained, missing = _containing(root, commit, {c for run in runs for c in (run.commit, run.base_commit)})
    found = [run.id for run in runs if run.commit in contained or run.base_commit in contained]
    unclear = sum(run.commit in missing and run.base_commit in missing for run in runs)
    notes = (f"{unclear} of {len(runs)} runs have commits that are not in {root}; git fetch --tags",) if unclear else ()
    wanted = Table("wanted_run", MetaData(), Column("id", Text, primary_key=True), prefixes=["TEMPORARY"])
    wanted.create(session.connection())  # runs may be more than a statement takes parameters
    if found:
        session.execute(insert(wanted), [{"id": name} for name in found])
    direct = select(ModelVersion.id).join(wanted, wanted.c.id == ModelVersion.run_id)
    holders = _holders(session, direct)
    wanted.drop(session.connection())
    asked = f"commit {commit}" if commit.startswith(revision) else f"commit {commit} ({revision})"
    return Trace(asked, (), holders, (*notes, *_unknown(session)))


def _with_data() -> Select[Any]:
    """The versions that were made from a data version; to be narrowed."""
    same = and_(DataVersion.stage == Edge.name, DataVersion.digest == Edge.digest)
    return select(Edge.version_id).join(DataVersion, same).where(Edge.kind == "data").distinct()


def _holders(session: Session, direct: Select[Any]) -> tuple[Holder, ...]:
    """The versions of `direct` and everything that has one of them among its parents, theirs, and so on."""
    first = direct.subquery()
    contains = select(first.c[0].label("id")).cte("contains", recursive=True)
    parent, edge = aliased(ModelVersion), aliased(Edge)
    is_child = and_(edge.kind == "parent", edge.name == parent.name, edge.digest == parent.weights)
    children = select(edge.version_id).join(parent, is_child).join(contains, contains.c.id == parent.id)
    contains = contains.union(children)

    mine = set(session.scalars(direct))
    version = ModelVersion  # its columns, not its objects: of 100,000 that takes a third of the time
    columns = (version.id, version.name, version.number, version.family, version.weights, version.run_id)
    rows = session.execute(select(*columns).join(contains, contains.c.id == version.id)).all()
    through: dict[int, list[str]] = defaultdict(list)
    if len(rows) > len(mine):
        came = select(edge.version_id, parent.name, parent.number).join(parent, is_child)
        for child, name, number in session.execute(came.join(contains, contains.c.id == parent.id)):
            through[child].append(f"{name} v{number}")
    released = _released(session, contains)
    newest: dict[str, int] = dict(session.execute(select(NEWEST)).all())  # type: ignore[arg-type]

    def holder(row: Any) -> Holder:
        numbers = tuple(sorted(released.get((row.name, row.weights), ())))
        now = newest.get(row.family)
        ways = () if row.id in mine else tuple(sorted(through[row.id]))
        return Holder(
            row.name, row.number, row.family, row.weights, row.run_id, ways, numbers, now if now in numbers else None
        )

    found = [holder(row) for row in rows]
    return tuple(sorted(found, key=lambda one: (one.now is None, not one.releases, one.model, -one.version)))


def _released(session: Session, contains: Any) -> dict[tuple[str, str], list[int]]:
    """Release numbers by model and weights; only of what is asked for."""
    numbers: dict[tuple[str, str], list[int]] = defaultdict(list)
    same = and_(Member.model == ModelVersion.name, Member.weights == ModelVersion.weights)
    rows = session.execute(
        select(Member.model, Member.weights, Release.number)
        .join(Release)
        .join(ModelVersion, same)
        .join(contains, contains.c.id == ModelVersion.id)
        .distinct()
    )
    for model, weights, number in rows:
        numbers[model, weights].append(number)
    return numbers


def _unknown(session: Session) -> tuple[str, ...]:
    """What is in production and not in the catalogue, as from another machine: nobody here can say what it contains."""
    last = and_(NEWEST.c.family == Release.family, NEWEST.c.number == Release.number)
    same = and_(Member.model == ModelVersion.name, Member.weights == ModelVersion.weights)
    rows = session.execute(
        select(Member.model, Member.version, Release.family, Release.number)
        .join(Release)
        .join(NEWEST, last)
        .outerjoin(ModelVersion, same)
        .where(ModelVersion.id.is_(None))
        .order_by(Member.model)
    )
    return tuple(
        f"{model} v{version} of {family} release {number} is in production and not in this catalogue: "
        "whether it contains this is not known here"
        for model, version, family, number in rows
    )


def _by_digest(session: Session, text: str) -> dict[str, list[str]]:
    """The photograph whose digest starts with `text` (or is the start of it: all 64 digits name it too)."""
    start = text.lower()
    if len(start) < SHORTEST or not HEX.fullmatch(start):
        return {}
    found = _known_photos(session, Photograph.photo.startswith(start[:PHOTO_DIGITS], autoescape=True))
    if len(found) > 1:
        raise UserError(
            f"'{text}' is ambiguous: {_some([f'{digest} {names[0]}' for digest, names in found.items()])}; give more"
        )
    return found


def _known_photos(session: Session, which: Any) -> dict[str, list[str]]:
    """Digest and names of the photographs that fit."""
    names: dict[str, list[str]] = defaultdict(list)
    rows = session.execute(
        select(Photograph.photo, Photograph.name).where(which).distinct().order_by(Photograph.photo, Photograph.name)
    )
    for photo, name in rows:
        names[photo].append(name)
    return dict(names)


def _alike(session: Session, name: str) -> tuple[str, ...]:
    """A file's bytes are in no data version: is another photograph of its name?"""
    same = or_(Photograph.name == name, Photograph.name.endswith(f"/{name}", autoescape=True))
    others = list(_known_photos(session, same))
    return (f"a photograph of that name has other bytes: {_some(others)}",) if others else ()


def _digest(path: Path) -> str:
    try:
        return digests.sha256(path)[:PHOTO_DIGITS]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; correct its permissions") from None


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _resolve(root: Path, revision: str) -> str:
    """The commit that a person names by hash, tag or branch; UserError names the near tag or branch."""
    found = (
        ""
        if revision.startswith("-")
        else repository.git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", check=False)
    )
    if not found:
        names = repository.git(root, "for-each-ref", "--format=%(refname:short)", "refs/tags", "refs/heads").split()
        close = near(revision, names)
        hint = close if "did you mean" in close else "; git fetch --tags, if another clone has it"
        raise UserError(f"'{revision}' is no commit of {root}{hint}")
    return found


def _containing(root: Path, commit: str, candidates: Collection[str]) -> tuple[set[str], set[str]]:
    """Which of the candidate commits are `commit` or come after it, and which are not in this repository."""
    if not candidates:
        return set(), set()
    lines = "\n".join(candidates) + "\n"
    checked = repository.git(root, "cat-file", "--batch-check=%(objecttype)", stdin=lines).splitlines()
    missing = {c for c, kind in zip(candidates, checked, strict=True) if kind != "commit"}
    tips = "\n".join([f"^{commit}", *(c for c in candidates if c not in missing)]) + "\n"
    after = set(repository.git(root, "rev-list", "--ancestry-path", "--stdin", stdin=tips).split())
    return {c for c in candidates if c == commit or c in after}, missing
