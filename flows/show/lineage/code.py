"""What git holds of a run: whether its tag still stands, where it ran, and the parameters of each of its stages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from data.core import plain_yaml
from data.core.params import UserError, near
from flows import repository
from flows.pipeline import environment
from flows.pipeline.environment import Environment
from flows.pipeline.lock import GUARDS, input_digest
from models.tracking.training_run import flatten


@dataclass(frozen=True)
class Code:
    """One commit that a run recorded; everything is empty where this repository does not have it."""

    root: Path
    commit: str

    @cached_property
    def there(self) -> bool:
        return bool(
            repository.git(self.root, "rev-parse", "--verify", "--quiet", f"{self.commit}^{{commit}}", check=False)
        )

    @cached_property
    def environment(self) -> Environment | None:
        return environment.of_commit(self.root, self.commit) if self.there else None

    def worker(self, model: str) -> Environment | None:
        """Where the model's own stage ran, if a worker ran it."""
        known = environment.of_workers(self.root, self.commit) if self.there else None
        return known.get(next(iter(self._behind(model)), "")) if known else None

    def parameters(self, model: str) -> dict[str, dict[str, Any]]:
        """Parameters of the stages that made a model, by stage: from its own back to its parents and to its data."""
        return {name: _values(self._stages[name]) for name in self._behind(model)}

    def executions(self, model: str) -> dict[str, str]:
        """Every stage that a model needs, those of its parents and of validation too: digests of their inputs."""
        path = self._models.get(model)
        names = _stages_behind(self._stages, path, (), ()) if path else []
        return {name: input_digest(self._stages[name]) for name in names}

    def sections(self, model: str) -> set[str]:
        """The parameters that these stages name: "seed", "generator.maskgit" for all below it."""
        return {section for name in self._behind(model) for section in _given(self._stages[name])}

    def problem(self, tag: str) -> str:
        """What is wrong with the tag that should keep this commit, "" if nothing."""
        found = repository.git(
            self.root, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}", check=False
        )
        if found == self.commit:
            return ""
        short = self.commit[:12]
        if found:
            return f"tag {tag} was moved: it names {found[:12]}, the run recorded {short}"
        if self.there:
            return f"tag {tag} was deleted, so nothing keeps commit {short}; again: git tag -a {tag} {short}"
        return f"tag {tag} and commit {short} are not in this repository; git fetch --tags, if another one has them"

    def _behind(self, model: str) -> list[str]:
        path = self._models.get(model)
        others = set(self._models.values()) - {path}
        return _stages_behind(self._stages, path, others) if path else []

    @cached_property
    def _stages(self) -> Mapping[str, Any]:
        text = self._text("dvc.lock")
        return (plain_yaml.recorded(text) or {}).get("stages") or {} if text else {}

    @cached_property
    def _models(self) -> dict[str, str]:
        """Path of each model's folder."""
        text = self._text("dvc.yaml")
        graph = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if text else {}
        return {name: entry["path"] for name, entry in (graph.get("artifacts") or {}).items()}

    def _text(self, path: str) -> str | None:
        return repository.file_at(self.root, self.commit, path) if self.there else None


@dataclass
class Repository:
    """The commits of one repository, each read once."""

    root: Path
    known: dict[str, Code] = field(default_factory=dict)

    def at(self, commit: str) -> Code:
        return self.known.setdefault(commit, Code(self.root, commit))


def resolve(root: Path, revision: str) -> str:
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


def containing(root: Path, commit: str, candidates: Collection[str]) -> tuple[set[str], set[str]]:
    """Which of the candidate commits are `commit` or come after it, and which are not in this repository."""
    if not candidates:
        return set(), set()
    lines = "\n".join(candidates) + "\n"
    checked = repository.git(root, "cat-file", "--batch-check=%(objecttype)", stdin=lines).splitlines()
    missing = {c for c, kind in zip(candidates, checked, strict=True) if kind != "commit"}
    tips = "\n".join([f"^{commit}", *(c for c in candidates if c not in missing)]) + "\n"
    after = set(repository.git(root, "rev-list", "--ancestry-path", "--stdin", stdin=tips).split())
    return {c for c in candidates if c == commit or c in after}, missing


def _stages_behind(
    stages: Mapping[str, Any], path: str, others: Collection[str], without: Collection[str] = GUARDS
) -> list[str]:
    """The stages between a model's folder and its parents, then the data stages; those nearest to the model first."""
    makers = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", [])}

    def before(wanted: str) -> Iterator[str]:
        for out, name in makers.items():
            if out == wanted or out.startswith(f"{wanted}/") or wanted.startswith(f"{out}/"):
                yield name

    found: list[str] = []
    todo = list(before(path))
    while todo:
        name = todo.pop(0)
        if name in found or name in without:
            continue
        found.append(name)
        deps = [dep["path"] for dep in stages[name].get("deps", [])]
        todo += [maker for dep in deps if dep not in others for maker in before(dep)]
    return found


def _values(stage: Mapping[str, Any]) -> dict[str, Any]:
    """A stage's parameters without the names of its sections, then what all share: {"net.dim": 128, "seed": 42}."""
    given = _given(stage)
    sections = [flatten(value) for value in given.values() if isinstance(value, Mapping)]
    shared = {name: value for name, value in given.items() if not isinstance(value, Mapping)}
    return {name: value for section in sections for name, value in section.items()} | shared


def _given(stage: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stage's parameters as dvc.lock has them."""
    return stage.get("params", {}).get("params.yaml", {})
