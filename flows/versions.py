"""Version tags in git, as GTO writes them: `tokenizer@v1.0.0` for a version, `tokenizer#production#1` for a promotion.

With them `gto show` lists every model of the repository, and `dvc artifacts get . tokenizer --stage production`
brings the weights. Versions count up per model: v1.0.0, v2.0.0, ...; the tag's message names the run and the digest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from data.params import UserError
from flows import repository
from flows.promotion import PRODUCTION, Decision, production
from flows.registry import Registered
from flows.run import RunInfo
from flows.settings import Settings
from models import tracking

GTO_TAG = "gto_tag"  # on the version in MLflow: its tag in git


def tag_versions(
    registered: Sequence[Registered], decisions: Sequence[Decision], run: RunInfo, settings: Settings
) -> list[str]:
    """Tag the run's commit with every new version, and what is now in production; returns the tags it made.

    The tags follow the registry: what an interrupted run moved and did not tag is tagged by the next call.
    """
    client, reason = tracking.connect(settings.mlflow_uri)
    if client is None:
        raise UserError(f"cannot note the version tags: {reason}")
    there = set(repository.git(settings.root, "tag", "--list").splitlines())
    standing = production(client, [one.model.name for one in registered])
    reasons = {decision.model: decision.reason for decision in decisions}
    made = []

    def make(tag: str, message: str, commit: str) -> None:
        repository.tag(settings.root, tag, message, commit)
        there.add(tag)
        made.append(tag)

    for one in registered:
        name = one.model.name
        version = one.tags.get(GTO_TAG, "")
        if version not in there:  # new, or its tag was deleted
            version = next_version(name, there)
            make(version, f"{name} v{one.version} of {run.tag}\n\nweights {one.weights}\n", run.commit)
            client.set_model_version_tag(name, str(one.version), GTO_TAG, version)
        commit = _commit(settings, version)
        if name in standing and standing[name].version == one.version:
            newest = newest_assignment(name, PRODUCTION, there)
            if newest is None or _commit(settings, newest) != commit:
                tag = next_assignment(name, PRODUCTION, there)
                make(tag, f"{version} to {PRODUCTION}: {reasons.get(name, 'in the registry')}", commit)
    return made


def next_version(name: str, tags: Iterable[str]) -> str:
    """The tag of a model's next version: one major number above the highest there is."""
    pattern = re.compile(rf"{re.escape(name)}@v(\d+)\.\d+\.\d+")
    taken = [int(found[1]) for found in map(pattern.fullmatch, tags) if found]
    return f"{name}@v{max(taken, default=0) + 1}.0.0"


def next_assignment(name: str, stage: str, tags: Iterable[str]) -> str:
    """The tag that assigns a model's stage; GTO counts through all of a model and lets the highest number count."""
    pattern = re.compile(rf"{re.escape(name)}[@#].+#(\d+)")
    taken = [int(found[1]) for found in map(pattern.fullmatch, tags) if found]
    return f"{name}#{stage}#{max(taken, default=0) + 1}"


def newest_assignment(name: str, stage: str, tags: Iterable[str]) -> str | None:
    """The tag that last assigned this stage, None if none did."""
    pattern = re.compile(rf"{re.escape(name)}#{re.escape(stage)}#(\d+)")
    taken = {int(found[1]): found[0] for found in map(pattern.fullmatch, tags) if found}
    return taken[max(taken)] if taken else None


def _commit(settings: Settings, tag: str) -> str:
    return repository.git(settings.root, "rev-parse", f"{tag}^{{commit}}")
