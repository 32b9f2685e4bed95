"""Git tags as GTO writes them: `tokenizer@v1.0.0` for a version, `tokenizer#production#1` for a promotion.

With them `gto show` lists every model of the repository, and `dvc artifacts get . tokenizer --stage production`
brings the weights. Versions count up per model: v1.0.0, v2.0.0, ...; the tag's message names the run and the digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from data.core.params import UserError
from flows import repository
from flows.pipeline.reference import GTO_TAG
from flows.settings import Settings
from models.tracking import training_run

if TYPE_CHECKING:
    from flows.release.registry import Registered


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


def tag_versions(registered: Sequence[Registered], settings: Settings) -> list[Registered]:
    """The versions with their tags; what has none yet gets the next number, on its commit of record.

    A stop between the tag and its note in MLflow leaves a tag that names the model: it is found again.
    """
    client, reason = training_run.connect(settings.mlflow_uri)
    if client is None:
        raise UserError(f"cannot note the version tags: {reason}")
    there = read(settings.root)
    done = []
    for one in registered:
        name = one.model.name
        known = None if one.tags.get(GTO_TAG) else find(settings.root, name, one.weights, one.config)
        tag = one.tags.get(GTO_TAG) or (known.tag if known else "")
        if not tag:
            tag = next_version(name, there)
            words = message(name, one.version, one.record.tag, one.weights, one.config)
            repository.tag(settings.root, tag, words, one.record.commit)
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
