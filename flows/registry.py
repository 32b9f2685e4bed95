"""Put a run's models into MLflow's registry, each bound by digests to what it was made from.

A registered version is loadable by `mlflow.pyfunc.load_model` (code from models/serving, weights from
safetensors) and carries as tags the digests of its weights and configuration, the commit and tag of the run, the
digests of dvc.lock, of the data and of its parents. What is already registered is not registered again: a version is
its weights with their configuration, for that names the tokenizer and the sampler without which the same weights are
another generator.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data.params import UserError
from flows import packing
from flows.families import Model, evaluation_of, models_of, parents_of, sha256
from flows.run import RunInfo
from flows.settings import Settings
from models import tracking
from models.registry import logged_model
from models.saved import weights_digest

GUARDS = ("validate",)  # stages that let data through and add nothing to it


@dataclass(frozen=True)
class Registered:
    """A version in the registry, as a run left it."""

    model: Model
    version: int
    weights: str  # sha256 of model.safetensors
    parents: Mapping[str, str]  # model name -> weights digest
    metrics: Mapping[str, float]  # of this run's evaluation
    mlflow_run_id: str
    new: bool = True  # False: this model had been registered before
    tags: Mapping[str, str] = field(default_factory=dict)
    config: str = ""  # sha256 of config.json


def register_models(run: RunInfo, settings: Settings, family: str | None = None) -> list[Registered]:
    """Register every model of the run (of a family) that the registry lacks; a stage that did not run is left out."""
    client, reason = tracking.connect(settings.mlflow_uri)
    if client is None:
        raise UserError(f"cannot register models: {reason}")
    wanted = [model for model in models_of(run.workspace) if family in (None, model.family)]
    there = [model for model in wanted if (run.workspace / model.path / "model.safetensors").exists()]
    return [_register(client, run, model) for model in there]


def data_of(lock: Mapping[str, Any], path: str) -> dict[str, str]:
    """Digests of the data that an output was made from: the outs of the graph's first stages, by stage name.

    lock: the content of dvc.lock. The digests are DVC's own, so `dvc` finds these bytes again.
    """
    stages = lock.get("stages", {})
    makers = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", [])}

    def before(wanted: str) -> Iterator[str]:
        for out, name in makers.items():
            if out == wanted or out.startswith(f"{wanted}/") or wanted.startswith(f"{out}/"):
                yield name

    data: dict[str, str] = {}
    todo, seen = list(before(path)), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        upstream = [maker for dep in stages[name].get("deps", []) for maker in before(dep["path"])]
        todo += [maker for maker in upstream if maker not in GUARDS]
        if not upstream:
            data[name] = ",".join(out["md5"] for out in stages[name]["outs"])
    return dict(sorted(data.items()))


def _register(client: Any, run: RunInfo, model: Model) -> Registered:
    folder = run.workspace / model.path
    weights, config, parents = weights_digest(folder), sha256(folder / "config.json"), parents_of(run.workspace, model)
    metrics = evaluation_of(run.workspace, model)
    known = _version_with(client, model.name, weights, config)
    if known is not None:
        _log_metrics(client, known.run_id, logged_model(client, known).model_id, metrics)
        return Registered(model, int(known.version), weights, parents, metrics, known.run_id, False, known.tags, config)
    tags = {
        tracking.WEIGHTS: weights,
        tracking.CONFIG: config,
        tracking.COMMIT: run.commit,
        "git_tag": run.tag,
        "dvc_lock": sha256(run.workspace / "dvc.lock"),
        **{f"parent.{name}": digest for name, digest in parents.items()},
    }
    lock = yaml.safe_load((run.workspace / "dvc.lock").read_text())
    tags |= {f"data.{name}": digest for name, digest in data_of(lock, model.path.as_posix()).items()}
    run_id = _run_of(client, run, model, weights)
    model_id = _log_model(client, run, model, run_id)
    _log_metrics(client, run_id, model_id, metrics)
    _ensure_name(client, model)
    made = client.create_model_version(
        model.name,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags=tags,
        description=f"{model.desc}, made by {run.tag} (commit {run.commit[:12]}), weights {weights[:12]}",
        model_id=model_id,
    )
    # by this tag the model's own page finds its version
    version = json.dumps([{"name": made.name, "version": made.version}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": version})
    return Registered(model, int(made.version), weights, parents, metrics, run_id, True, tags, config)


def _version_with(client: Any, name: str, weights: str, config: str) -> Any:
    """The registered version of these weights with this configuration, None if there is none."""
    found = client.search_model_versions(f"name = '{name}' AND tag.{tracking.WEIGHTS} = '{weights}'")
    same = [one for one in found if one.tags.get(tracking.CONFIG, config) == config]
    return min(same, key=lambda version: int(version.version), default=None)


def _run_of(client: Any, run: RunInfo, model: Model, weights: str) -> str:
    """The tracking run of the stage that trained these weights; a run of its own if training was not tracked."""
    experiment = tracking.experiment(client, tracking.family_of(model.stage))
    wanted = f"tags.{tracking.STAGE} = '{model.stage}' AND tags.{tracking.WEIGHTS} = '{weights}'"
    found = client.search_runs([experiment], wanted, order_by=["attributes.start_time DESC"], max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {tracking.STAGE: model.stage, tracking.WEIGHTS: weights, tracking.COMMIT: run.commit, tracking.RUN: run.id}
    made = client.create_run(experiment, tags=tags, run_name=f"{model.stage} {run.id}").info.run_id
    client.set_terminated(made)
    return str(made)


def _log_model(client: Any, run: RunInfo, model: Model, run_id: str) -> str:
    """Write the model in MLflow's format into the artifact store and return its id.

    The same steps as `mlflow.pyfunc.log_model`, without its trial prediction, which would import torch here
    and take seconds per model; the evaluation stage has just used these weights.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    config = json.loads((run.workspace / model.path / "config.json").read_text())
    params = {key: str(value)[:250] for key, value in tracking.flatten(config).items()}
    logged = client.create_logged_model(
        experiment, name=model.name, source_run_id=run_id, params=params, model_type=model.serving
    )
    about = mlflow.models.Model(
        artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run_id, model_id=logged.model_id
    )
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / "model"
        packing.pack(run.workspace, model, packed, about)
        client.log_model_artifacts(logged.model_id, str(packed))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def _log_metrics(client: Any, run_id: str, model_id: str, metrics: Mapping[str, float]) -> None:
    """Log the evaluation both on the run (to compare runs) and on the model (its page, and promotion)."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    rows = [Metric(key, value, now, 0, model_id=model_id, run_id=run_id) for key, value in metrics.items()]
    client.log_batch(run_id, metrics=rows)


def _ensure_name(client: Any, model: Model) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model.name, description=model.desc)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
