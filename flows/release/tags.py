"""Git tags as GTO writes them: `tokenizer@v1.0.0` for a version, `tokenizer#production#1` for a promotion.

With them `gto show` lists every model of the repository, and `dvc artifacts get . tokenizer --stage production`
brings the weights. Versions count up per model: v1.0.0, v2.0.0, ...; the tag's message names the run and the digest.
They follow the log of releases (`in_git`), and nothing here ever moves one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flows import repository
from flows.pipeline.reference import GTO_TAG, PRODUCTION
from flows.release import bundle
from flows.release.pointers import Pointer, aliases, title
from flows.release.stores import Finding, Stores

if TYPE_CHECKING:
    from flows.catalogue.registered import Registered

_FETCH = "this clone does not have the commit: git fetch --tags, with --unshallow in a shallow clone"


@dataclass(frozen=True)
class Tagged:
    """A version's tag: where it stands, and the run that it says made the version."""

    tag: str
    commit: str
    run: str  # run/<id>


def read(root: Path) -> dict[str, str]:
    """Every tag of the repository with the commit that it stands on."""
    shown = repository.git(
        root, "for-each-ref", "refs/tags", "--format=%(refname:strip=2) %(objectname) %(*objectname)"
    )
    lines = [line.split() for line in shown.splitlines()]
    return {name: commits[-1] for name, *commits in lines}


def tag_versions(stores: Stores, registered: Sequence[Registered]) -> list[Registered]:
    """The versions with their tags; what has none yet gets the next number, on its commit of record.

    A stop between the tag and its note in MLflow leaves a tag that names the model: it is found again.
    """
    client, root = stores.mlflow(), stores.settings.root
    there = read(root)
    done = []
    for one in registered:
        name = one.model.name
        known = None if one.tags.get(GTO_TAG) else find(root, name, one.weights, one.config)
        tag = one.tags.get(GTO_TAG) or (known.tag if known else "")
        if not tag:
            tag = next_version(name, there)
            words = message(name, one.version, one.record.tag, one.weights, one.config)
            repository.tag(root, tag, words, one.record.commit)
            there[tag] = one.record.commit
        if one.tags.get(GTO_TAG) != tag:
            client.set_model_version_tag(name, str(one.version), GTO_TAG, tag)
        done.append(replace(one, tags={**one.tags, GTO_TAG: tag}))
    return done


def message(name: str, version: int, run_tag: str, weights: str, config: str = "") -> str:
    """What the tag of a version says."""
    also = f" config {config}" if config else ""
    return f"{name} v{version} of {run_tag}\n\nweights {weights}{also}\n"


def next_version(name: str, tags: Iterable[str]) -> str:
    """The tag of a model's next version: one major number above the highest there is."""
    pattern = re.compile(rf"{re.escape(name)}@v(\d+)\.\d+\.\d+")
    taken = [int(found[1]) for found in map(pattern.fullmatch, tags) if found]
    return f"{name}@v{max(taken, default=0) + 1}.0.0"


def next_assignment(name: str, stage: str, tags: Iterable[str]) -> str:
    """The tag that assigns a model's stage (`stage!` takes it away); GTO counts through all tags of a model."""
    pattern = re.compile(rf"{re.escape(name)}[@#].+#(\d+)")
    taken = [int(found[1]) for found in map(pattern.fullmatch, tags) if found]
    return f"{name}#{stage}#{max(taken, default=0) + 1}"


def newest_assignment(name: str, stage: str, tags: Iterable[str]) -> str | None:
    """The tag that last assigned this stage or took it away (`name#stage!#N`), None if none did."""
    pattern = re.compile(rf"{re.escape(name)}#{re.escape(stage)}!?#(\d+)")
    taken = {int(found[1]): found[0] for found in map(pattern.fullmatch, tags) if found}
    return taken[max(taken)] if taken else None


def assigned(name: str, stage: str, tags: Mapping[str, str]) -> str | None:
    """The commit that holds a stage of a model, None if it was never assigned or was taken away."""
    newest = newest_assignment(name, stage, tags)
    return None if newest is None or f"#{stage}!#" in newest else tags[newest]


def find(root: Path, name: str, weights: str, config: str) -> Tagged | None:
    """The version tag whose message names these weights with this configuration, None if there is none."""
    form = "%(refname:strip=2)%00%(*objectname)%00%(contents:subject)%00%(contents:body)%01"
    shown = repository.git(root, "for-each-ref", f"refs/tags/{name}@*", f"--format={form}", "--sort=refname")
    for entry in shown.split("\x01"):
        tag, commit, subject, body = (*entry.strip().split("\0"), "", "", "")[:4]
        if body.strip() == f"weights {weights} config {config}":
            return Tagged(tag, commit, subject.partition(" of ")[2])
    return None


def in_git(stores: Stores, family: str, log: Sequence[Pointer]) -> list[Finding]:
    """Version tags of released models that are gone or moved, and stages that are not assigned as released."""
    root, release = stores.settings.root, title(log[-1]) if log else "none"
    there = read(root)
    found = []
    for name, wanted in aliases(log).items():
        member, now, subject = wanted.production, assigned(name, PRODUCTION, there), f"{name}#{PRODUCTION}"
        if member is None:
            if now:
                repair = partial(_assign, root, name, None, f"{name} is not part of {release}")
                found.append(Finding("git", subject, "assigned", "not assigned", repair))
            continue
        made = bundle.read(stores.bucket, name, member.bundle)  # it cannot be changed unseen
        commit = made.lineage.commit
        if there.get(member.tag) != commit:
            words = message(name, member.version, made.lineage.tag, member.weights, made.config)
            found.append(tag_finding(root, member.tag, words, there.get(member.tag), commit))
        if now != commit:
            repair = partial(_assign, root, name, commit, f"{member.tag} to {PRODUCTION}: {release}")
            finding = Finding("git", subject, _short(now), f"{_short(commit)} ({member.tag})", repair)
            found.append(_where_known(root, commit, finding))
    return found


def tag_finding(root: Path, tag: str, message: str, says: str | None, commit: str) -> Finding:
    """A tag that is missing, to be put back where this clone has the commit; or one that stands on another commit.

    That one is a person's to remove: whoever fetched it relies on it.
    """
    if says is not None:
        advice = f"somebody moved it; git tag -d '{tag}', then: remint doctor --repair"
        return Finding("git", tag, _short(says), _short(commit), None, advice)
    repair = partial(_put_back, root, tag, message, commit)
    return _where_known(root, commit, Finding("git", tag, _short(says), _short(commit), repair))


def _where_known(root: Path, commit: str, finding: Finding) -> Finding:
    """A finding whose repair needs a commit, without the repair where this clone does not have it."""
    if repository.git(root, "cat-file", "-t", commit, check=False) == "commit":
        return finding
    return replace(finding, repair=None, advice=_FETCH)


def _put_back(root: Path, tag: str, message: str, commit: str) -> None:
    """Make a tag again, unless another process has just done it."""
    if read(root).get(tag) != commit:
        repository.tag(root, tag, message, commit)


def _assign(root: Path, name: str, commit: str | None, message: str) -> None:
    """Assign a model's stage to a commit or, with None, take it away; unless another process has just done it."""
    there = read(root)
    now = assigned(name, PRODUCTION, there)
    if now != commit:
        tag = next_assignment(name, PRODUCTION if commit else f"{PRODUCTION}!", there)
        repository.tag(root, tag, message, commit or str(now))


def _short(commit: str | None) -> str:
    return f"at {commit[:12]}" if commit else "not there"
