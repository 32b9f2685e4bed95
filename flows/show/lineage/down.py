"""Lineage of a model version: data, code, parameters, parents and environment, by the catalogue and by git."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from flows import repository
from flows.catalogue import costs
from flows.catalogue.schema import DataVersion, Edge, Member, ModelVersion, Release, Run
from flows.pipeline import environment
from flows.pipeline.environment import Environment
from flows.pipeline.lock import GUARDS, input_digest, lock_in
from flows.pipeline.plan import overlap
from flows.show.lineage.values import Cost, Data, Lineage, Made, Place, Unknown
from flows.stage.spending import total
from models.tracking.names import flatten

# the release of each family that is in production
NEWEST = select(Release.family, func.max(Release.number).label("number")).group_by(Release.family).subquery()


def lineage_of(session: Session, root: Path, version: ModelVersion) -> Lineage:
    """Everything that a version was made from; commits are looked up in the repository at `root`."""
    return _Search(session, root).down(version, ())


def releases_of(session: Session, version: ModelVersion) -> tuple[Place, ...]:
    """The releases that hold a version; after a rollback that may be several."""
    rows = session.execute(
        select(Release.family, Release.number, NEWEST.c.number)
        .join(Member, Member.release_id == Release.id)
        .join(NEWEST, NEWEST.c.family == Release.family)
        .where(Member.model == version.name, Member.version == version.number, Member.weights == version.weights)
        .order_by(Release.number)
    )
    return tuple(Place(family, number, number == now) for family, number, now in rows)


def data_version(session: Session, stage: str, digest: str) -> Data:
    """A data version with what the catalogue knows of it."""
    found = data_versions(session, DataVersion.stage == stage, DataVersion.digest == digest)
    return found[0] if found else Data(stage, digest)


def data_versions(session: Session, *which: Any) -> tuple[Data, ...]:
    """The data versions for which these conditions hold, in the order in which they were made."""
    before = aliased(DataVersion)
    rows = session.execute(
        select(DataVersion, before.digest)
        .outerjoin(before, DataVersion.parent_id == before.id)
        .where(*which)
        .order_by(DataVersion.id)
    )
    return tuple(Data(d.stage, d.digest, d.rows, d.bytes, d.verdict, earlier or "") for d, earlier in rows)


@dataclass(frozen=True)
class Code:
    """One commit that a run recorded; everything is empty where this repository does not have it."""

    root: Path
    commit: str

    @cached_property
    def there(self) -> bool:
        return bool(self._resolved(self.commit))

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
        found = self._resolved(f"refs/tags/{tag}")
        if found == self.commit:
            return ""
        short = self.commit[:12]
        if found:
            return f"tag {tag} was moved: it names {found[:12]}, the run recorded {short}"
        if self.there:
            return f"tag {tag} was deleted, so nothing keeps commit {short}; again: git tag -a {tag} {short}"
        return f"tag {tag} and commit {short} are not in this repository; git fetch --tags, if another one has them"

    def _resolved(self, revision: str) -> str:
        return repository.git(self.root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}", check=False)

    def _behind(self, model: str) -> list[str]:
        path = self._models.get(model)
        others = set(self._models.values()) - {path}
        return _stages_behind(self._stages, path, others) if path else []

    @cached_property
    def _stages(self) -> Mapping[str, Any]:
        return lock_in((self._text("dvc.lock") or "").encode())

    @cached_property
    def _models(self) -> dict[str, str]:
        """Path of each model's folder."""
        text = self._text("dvc.yaml")
        graph = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if text else {}
        return {name: entry["path"] for name, entry in (graph.get("artifacts") or {}).items()}

    def _text(self, path: str) -> str | None:
        return repository.file_at(self.root, self.commit, path) if self.there else None


@dataclass(frozen=True)
class _Search:
    """One walk through the catalogue; a commit is read once, however many models a run made."""

    session: Session
    root: Path
    commits: dict[str, Code] = field(default_factory=dict)

    def down(self, version: ModelVersion, above: tuple[str, ...]) -> Lineage:
        """above: the weights on the way here, so that edges in a circle (nothing real has them) come to an end."""
        run = self.session.get_one(Run, version.run_id)
        code = self.commits.setdefault(run.commit, Code(self.root, run.commit))
        edges = self.session.execute(
            select(Edge.kind, Edge.name, Edge.digest).where(Edge.version_id == version.id).order_by(Edge.name)
        ).all()
        problem = code.problem(run.tag)
        return Lineage(
            model=version.name,
            version=version.number,
            family=version.family,
            weights=version.weights,
            tag=version.tag,
            made=_made(run, code, version.name),
            parameters=code.parameters(version.name),
            data=tuple(data_version(self.session, edge.name, edge.digest) for edge in edges if edge.kind == "data"),
            parents=tuple(
                self.parent(edge.name, edge.digest, (*above, version.weights))
                for edge in edges
                if edge.kind == "parent"
            ),
            releases=releases_of(self.session, version),
            problems=(problem,) if problem else (),
            cost=self.cost(code, version.name),
        )

    def cost(self, code: Code, model: str) -> Cost | None:
        """What all stages cost that the model needs, by the executions that made their outputs."""
        needed = code.executions(model)
        made = costs.of_executions(self.session, needed.items())
        if not made:
            return None
        unknown = [stage for stage, digest in needed.items() if (stage, digest) not in made]
        return Cost(total(made.values()), tuple(needed), tuple(unknown))

    def parent(self, model: str, weights: str, above: tuple[str, ...]) -> Lineage | Unknown:
        """The parent with these weights; of several versions with the same ones, the first."""
        found = self.session.scalars(
            select(ModelVersion)
            .where(ModelVersion.name == model, ModelVersion.weights == weights)
            .order_by(ModelVersion.number)
            .limit(1)
        ).first()
        return Unknown(model, weights) if found is None or weights in above else self.down(found, above)


def _made(run: Run, code: Code, model: str) -> Made:
    worker = code.worker(model)
    there = worker or code.environment
    surroundings = {"python": there.python, "torch": there.torch, "requirements.lock": there.lock} if there else {}
    return Made(
        run=run.id,
        tag=run.tag,
        commit=run.commit,
        base_commit=run.base_commit,
        trigger=run.trigger,
        started=run.started,
        parameters=run.parameters,
        environment=worker.digest if worker else run.environment,
        machine=worker.machine if worker else run.machine,
        surroundings={name: value for name, value in surroundings.items() if value},
    )


def _stages_behind(
    stages: Mapping[str, Any], path: str, others: Collection[str], without: Collection[str] = GUARDS
) -> list[str]:
    """The stages between a model's folder and its parents, then the data stages; those nearest to the model first."""
    makers = [(out["path"], name) for name, stage in stages.items() for out in stage.get("outs", [])]

    def before(wanted: str) -> list[str]:
        return [name for out, name in makers if overlap(out, wanted)]

    found: list[str] = []
    todo = before(path)
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
