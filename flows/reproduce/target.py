"""Targets of a reproduction: from `tokenizer@production` to the commit that made it, by git, release log and catalogue.

A clone has only git, and that is enough. Where the bucket of releases or the catalogue can be asked, they say which
commit a version was made from, and a tag that says otherwise was moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.core.params import UserError, near
from flows import repository
from flows.catalogue import database, queries
from flows.pipeline import families
from flows.pipeline.families import Model
from flows.pipeline.reference import PREVIOUS, PRODUCTION, number, parse
from flows.release import anchors, bundle, pointers, tags
from flows.settings import Settings
from flows.storage import bucket

ALIASES = (PRODUCTION, PREVIOUS)
Tags = Mapping[str, str]  # every tag of the repository, with its commit


@dataclass(frozen=True)
class Target:
    """A model version that is to be made again."""

    model: Model
    tag: str  # of the version in git: "tokenizer@v3.0.0"
    commit: str  # of the run that made it
    weights: str  # sha256 of model.safetensors as the tag says, "" if it does not
    by: str  # what says so: "git's tags", "images #3 in s3://..."
    bundle: str = ""  # its bundle in the bucket, where a release has it

    @property
    def title(self) -> str:
        """As people call it: "tokenizer@v3"."""
        return self.tag.removesuffix(".0.0")


@dataclass(frozen=True)
class Claim:
    """What a place other than git says of a version: the commit that made it, which a moved tag cannot change."""

    tag: str  # "tokenizer@v3.0.0"
    commit: str
    weights: str  # sha256 of model.safetensors
    by: str  # "images #3 in /srv/production", "the catalogue"
    bundle: str = ""  # of the release


def resolve(settings: Settings, reference: str) -> Target:
    """The version that a reference names; UserError for an unknown name, or a tag that is missing or was moved."""
    name, named = parse(reference)
    root, which = settings.root, named or PRODUCTION
    there = tags.read(root)
    family_of = _families(root)
    known = sorted({*family_of, *(tag.partition("@")[0] for tag in there if "@v" in tag)})
    if name not in known:
        raise UserError(f"no model '{name}'{near(name, known)}")
    claim = None
    if which in ALIASES and name in family_of:
        claim = _of_release(settings, name, family_of[name], which)
    elif (version := number(which)) is not None:
        claim = _of_catalogue(settings, f"{name}@v{version}.0.0")
    tag = claim.tag if claim else _tag(root, name, which, there)
    if claim:
        _hold_against(root, name, which, claim, there)
    _hold_against_its_run(root, tag, there)
    return Target(
        model=_model(root, name, tag, there[tag]),
        tag=tag,
        commit=there[tag],
        weights=_weights(root, tag),
        by=claim.by if claim else "git's tags",
        bundle=claim.bundle if claim else "",
    )


def in_production(settings: Settings) -> list[Target]:
    """Every model of this checkout that is in production, by the release log where there is one, else by git's tags."""
    there = tags.read(settings.root)
    return [
        resolve(settings, f"{name}@production")
        for name, family in _families(settings.root).items()
        if tags.assigned(name, "production", there) or _of_release(settings, name, family, "production")
    ]


def _of_release(settings: Settings, name: str, family: str, alias: str) -> Claim | None:
    """The version that holds an alias by the newest pointer; None if nothing was released or nothing holds it."""
    place = bucket.at(settings.production)
    log = pointers.log(place, family)
    anchors.hold(settings, family, log)
    member = getattr(pointers.aliases(log).get(name), alias, None)
    if member is None:
        return None
    lineage = bundle.read(place, name, member.bundle).lineage
    by = f"{pointers.title(log[-1])} in {place.name}"
    return Claim(member.tag, lineage.commit, member.weights, by, member.bundle)


def _of_catalogue(settings: Settings, tag: str) -> Claim | None:
    """What the catalogue has for a version's tag. None is made to answer a question."""
    if not database.exists(settings):
        return None
    with database.open(settings).read() as session:
        found = queries.record_of(session, tag)
    return Claim(tag, *found, "the catalogue") if found else None


def _families(root: Path) -> dict[str, str]:
    """The family of each model of HEAD's graph."""
    return {m.name: m.family for m in families.models_in(repository.file_at(root, "HEAD", "dvc.yaml") or "")}


def _tag(root: Path, name: str, which: str, there: Tags) -> str:
    """The version's tag as git alone has it."""
    versions = _versions(name, there)
    if (version := number(which)) is not None:
        tag = f"{name}@v{version}.0.0"
        if tag not in there:
            newest = f"; the newest is {versions[-1]}" if versions else ""
            raise UserError(f"{name} has no version v{version} here{newest}{_fetch(root)}")
        return tag
    if which not in ALIASES:
        short = [tag.partition("@")[2].removesuffix(".0.0") for tag in versions]
        raise UserError(f"{name} has no alias '{which}'{near(which, [*ALIASES, *short])}")
    assignments = _assignments(name, there)
    if which == "previous":
        assignments = [tag for tag in assignments if there[tag] != there[assignments[0]]]
    if not assignments:
        raise UserError(f"{name} has no {which} version: no tag {name}#production#N says so{_fetch(root)}")
    return _assigned_version(root, name, assignments[0], there)


def _assigned_version(root: Path, name: str, assignment: str, there: Tags) -> str:
    """The version for which an assignment was made; UserError if the two tags do not stand on one commit."""
    commit = there[assignment]
    said = re.match(rf"{re.escape(name)}@v\d+\.0\.0", _words(root, assignment))
    standing = [tag for tag in _versions(name, there) if there[tag] == commit]
    tag = said[0] if said else standing[-1] if standing else None
    if tag is None:
        raise UserError(f"{assignment} stands on {commit[:12]}, where no tag {name}@vN.0.0 is{_fetch(root)}")
    if tag not in there:
        raise UserError(f"{assignment} was made for {tag}, which is not here{_fetch(root)}")
    if there[tag] != commit:
        raise UserError(
            f"{assignment} stands on {commit[:12]} and {tag}, for which it was made, on {there[tag][:12]}: "
            f"one of the two tags was moved{_fetch(root)}"
        )
    return tag


def _hold_against(root: Path, name: str, which: str, claim: Claim, there: Tags) -> None:
    """UserError if git says otherwise than the release log or the catalogue."""
    if claim.tag not in there:
        raise UserError(f"{claim.by} names {claim.tag}, a tag that is not here{_fetch(root)}")
    if there[claim.tag] != claim.commit:
        raise UserError(
            f"tag {claim.tag} was moved: it stands on {there[claim.tag][:12]}, and by {claim.by} it was made from "
            f"{claim.commit[:12]}{_fetch(root)}"
        )
    assigned = tags.assigned(name, "production", there)
    if which == "production" and assigned not in (None, claim.commit):
        raise UserError(
            f"git's tags have commit {str(assigned)[:12]} of {name} in production, {claim.by} has {claim.commit[:12]} "
            f"({claim.tag}): remint doctor --repair corrects the tags{_fetch(root)}"
        )
    if _weights(root, claim.tag) not in ("", claim.weights):
        raise UserError(
            f"tag {claim.tag} names weights {_weights(root, claim.tag)[:12]}, {claim.by} {claim.weights[:12]}: "
            f"the tag was made again{_fetch(root)}"
        )


def _hold_against_its_run(root: Path, tag: str, there: Tags) -> None:
    """UserError if a version's tag does not stand on the commit of the run that its own words name."""
    run = re.search(r" of (run/\S+)", _words(root, tag).partition("\n")[0])
    if run and there.get(run[1], there[tag]) != there[tag]:
        raise UserError(
            f"tag {tag} stands on {there[tag][:12]} and {run[1]}, the run it names, on {there[run[1]][:12]}: "
            f"one of the two tags was moved{_fetch(root)}"
        )


def _assignments(name: str, there: Tags) -> list[str]:
    """The tags that assigned production, newest first; [] if it was taken away since."""
    if tags.assigned(name, "production", there) is None:
        return []
    return _numbered(rf"{re.escape(name)}#production#(\d+)", there)[::-1]


def _versions(name: str, there: Iterable[str]) -> list[str]:
    """The tags of a model's versions, rising."""
    return _numbered(rf"{re.escape(name)}@v(\d+)\.0\.0", there)


def _numbered(pattern: str, names: Iterable[str]) -> list[str]:
    found = [match for match in (re.fullmatch(pattern, name) for name in names) if match]
    return [match[0] for match in sorted(found, key=lambda match: int(match[1]))]


def _model(root: Path, name: str, tag: str, commit: str) -> Model:
    """The model as its commit's graph declares it; UserError if the commit is no run's or is not here."""
    if repository.git(root, "cat-file", "-t", f"{commit}^{{tree}}", check=False) != "tree":
        raise UserError(f"{tag} is commit {commit[:12]}, which this clone does not have{_fetch(root)}")
    for needed in ("dvc.yaml", "dvc.lock", "params.yaml"):
        if not repository.git(root, "ls-tree", "--name-only", commit, needed):
            raise UserError(
                f"{tag} is commit {commit[:12]}, which has no {needed}: no run was recorded there; name another version"
            )
    for model in families.models_in(repository.file_at(root, commit, "dvc.yaml") or ""):
        if model.name == name:
            return model
    raise UserError(f"{tag} is commit {commit[:12]}, whose dvc.yaml has no artifact '{name}'; name another version")


def _words(root: Path, tag: str) -> str:
    return repository.git(root, "for-each-ref", f"refs/tags/{tag}", "--format=%(contents)")


def _weights(root: Path, tag: str) -> str:
    found = re.search(r"^weights ([0-9a-f]{64})( config [0-9a-f]{64})?$", _words(root, tag), re.MULTILINE)
    return found[1] if found else ""


def _fetch(root: Path) -> str:
    """The next step of a clone that lacks a tag or a commit, or has it otherwise."""
    if not repository.git(root, "remote"):
        return "; this clone has no remote to fetch from: git remote add origin ADDRESS && git fetch --tags"
    shallow = repository.git(root, "rev-parse", "--is-shallow-repository") == "true"
    return f"; git fetch {'--unshallow ' if shallow else ''}--tags --force origin"
