"""What a run made of a family, put beside releases as if it were one, before it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.orm import Session

from data.core import plain_yaml
from data.core.digests import sha256
from data.core.params import UserError
from flows.catalogue.schema import ModelVersion
from flows.pipeline.families import Model, evaluation_of, models_of, parents_of
from flows.pipeline.lock import data_of
from flows.pipeline.reference import RUN_TAG
from flows.release import bundle, recorded
from flows.release.gates import record
from flows.release.registry import DATA, DVC_LOCK, Registered
from flows.release.stores import Stores
from flows.runs.values import RunInfo
from flows.show.diff.releases import Bundles
from flows.show.diff.values import Side, Version
from models.core.saved import weights_digest
from models.tracking import training_run


@contextmanager
def opened(stores: Stores, family: str, wanted: str) -> Iterator[Bundles]:
    """A run's models of a family; their files are there until the context ends.

    UserError if there is no such run, it has no such family, its outputs are not here, or it was never registered.
    """
    found = recorded.find(stores, wanted)
    with recorded.opened(stores, found, family) as ran, stores.catalogue.read() as session:
        lock = sha256(ran.workspace / "dvc.lock")
        made = [
            bundle.pack(ran, _registered(session, ran, model, lock), "")
            for model in models_of(ran.workspace)
            if model.family == family
        ]
        manifests = {one.manifest.model: one.manifest for one in made}
        versions = {name: Version(one.version, one.weights, bundle.digest(one), "") for name, one in manifests.items()}
        at = ran.started.isoformat(timespec="seconds")
        side = Side(family, None, ran.id, ran.commit, "", "not released", at, None)
        yield Bundles(side, manifests, versions, {one.manifest.model: one.paths for one in made})


def _registered(session: Session, ran: RunInfo, model: Model, lock: str) -> Registered:
    """A model of the run as the registry would have it, read from its outputs and the catalogue alone."""
    folder = ran.workspace / model.path
    weights = weights_digest(folder)
    data = data_of(plain_yaml.recorded((ran.workspace / "dvc.lock").read_bytes()) or {}, model.path.as_posix())
    tags = {
        RUN_TAG: ran.tag,
        training_run.COMMIT: ran.commit,
        DVC_LOCK: lock,
        **{f"{DATA}{k}": v for k, v in data.items()},
    }
    return Registered(
        model=model,
        version=_number(session, ran, model.name, weights),
        weights=weights,
        parents=parents_of(ran.workspace, model),
        metrics=evaluation_of(ran.workspace, model),
        mlflow_run_id="",
        tags=tags,
        config=sha256(folder / "config.json"),
    )


def _number(session: Session, ran: RunInfo, name: str, weights: str) -> int:
    judged = [one.decision.version for one in record.of_run(session, ran.id) if one.decision.model == name]
    same = select(ModelVersion.number).where(ModelVersion.name == name, ModelVersion.weights == weights)
    found = judged or session.scalars(same.order_by(ModelVersion.number.desc())).all()
    if not found:
        raise UserError(f"{name} of run {ran.id} is not registered; remint judge {ran.id} registers and judges it")
    return found[0]
