"""From a model version down to its data, code, parameters, parents and environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session, aliased

from flows.catalogue import costs
from flows.catalogue.schema import DataVersion, Edge, Member, ModelVersion, Release, Run
from flows.show.lineage.code import Code, Repository
from flows.show.lineage.values import Cost, Data, Lineage, Made, Place, Unknown
from flows.stage.spending import total


def lineage_of(session: Session, root: Path, version: ModelVersion) -> Lineage:
    """Everything that a version was made from; commits are looked up in the repository at `root`."""
    return _Search(session, Repository(root)).down(version, ())


def releases_of(session: Session, version: ModelVersion) -> tuple[Place, ...]:
    """The releases that hold a version; after a rollback that may be several."""
    newest = select(Release.family, func.max(Release.number).label("number")).group_by(Release.family).subquery()
    rows = session.execute(
        select(Release.family, Release.number, newest.c.number)
        .join(Member, Member.release_id == Release.id)
        .join(newest, newest.c.family == Release.family)
        .where(Member.model == version.name, Member.version == version.number, Member.weights == version.weights)
        .order_by(Release.number)
    )
    return tuple(Place(family, number, number == now) for family, number, now in rows)


def data_version(session: Session, stage: str, digest: str) -> Data:
    """A data version with what the catalogue knows of it."""
    before = aliased(DataVersion)
    row = session.execute(
        select(DataVersion, before.digest)
        .outerjoin(before, DataVersion.parent_id == before.id)
        .where(DataVersion.stage == stage, DataVersion.digest == digest)
    ).one_or_none()
    if row is None:
        return Data(stage, digest)
    found, earlier = row
    return Data(stage, digest, found.rows, found.bytes, found.verdict, earlier or "")


@dataclass(frozen=True)
class _Search:
    """One walk through the catalogue; `commits` are read once, however many models a run made."""

    session: Session
    commits: Repository

    def down(self, version: ModelVersion, above: tuple[str, ...]) -> Lineage:
        """above: the weights on the way here, so that edges in a circle (nothing real has them) come to an end."""
        run = self.session.get_one(Run, version.run_id)
        code = self.commits.at(run.commit)
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
            .where(and_(ModelVersion.name == model, ModelVersion.weights == weights))
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
