"""A run's models in MLflow's registry, each bound by digests to what it was made from.

A version's page says what a person asks: its metrics, what the gates said of it, in which release it is, whether it
was reproduced. The digests by which it is found and checked are tags, those of what it was made from on the logged
model behind it (`packing`). What is already registered is not registered again: a version is its weights with their
configuration, for that names the tokenizer and the sampler without which the same weights are another generator.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from data.core import plain_yaml
from data.core.digests import sha256
from data.core.params import UserError
from flows import repository
from flows.catalogue.registered import DATA, DVC_LOCK, Record, Registered
from flows.console import say
from flows.pipeline.families import Model, evaluation_of, models_of, parents_of
from flows.pipeline.lock import data_of
from flows.pipeline.reference import RUN_TAG
from flows.pipeline.run import RunInfo, headline
from flows.release import packing, tags
from flows.release.stores import Stores
from flows.settings import Settings
from models.core.saved import weights_digest
from models.metrics import METRICS
from models.registry import logged_model
from models.tracking import training_run
from models.tracking.experiments import GATE, RELEASE, REPRODUCED
from models.tracking.names import final, run_name

LOOKED_AT = 200  # evaluations among which the one with a model's numbers is found, the newest first
METRIC = "metric"  # tag of a version: its headline metric in words


def register_models(stores: Stores, run: RunInfo, family: str | None = None) -> list[Registered]:
    """Register every model of the run (of a family) that the registry lacks; a stage that did not run is left out."""
    client = stores.mlflow()
    wanted = [model for model in models_of(run.workspace) if family in (None, model.family)]
    there = [model for model in wanted if (run.workspace / model.path / "model.safetensors").exists()]
    return [_register(client, run, model) for model in there]


def _register(client: Any, run: RunInfo, model: Model) -> Registered:
    folder = run.workspace / model.path
    weights, config, parents = weights_digest(folder), sha256(folder / "config.json"), parents_of(run.workspace, model)
    metrics = evaluation_of(run.workspace, model)
    known = version_with(client, model.name, weights, config)
    if known is not None:
        logged = logged_model(client, known)
        _restore_run(client, known)
        _log_metrics(client, model, known.run_id, logged.model_id, metrics)
        client.set_model_version_tag(model.name, known.version, METRIC, _metric(metrics))
        about = {**logged.tags, **known.tags}  # versions of before have all of them as their own
        return Registered(model, int(known.version), weights, parents, metrics, known.run_id, False, about, config)
    record = _record(run, model, weights, config)
    about = {  # MLflow lists tags in the order in which they came: what a person asks comes first
        **{METRIC: _metric(metrics), GATE: "not judged", RELEASE: "none", REPRODUCED: "not yet"},
        **{RUN_TAG: record.tag, training_run.WEIGHTS: weights, training_run.CONFIG: config},
    }
    made_of = {
        training_run.COMMIT: record.commit,
        DVC_LOCK: record.dvc_lock,
        **{f"parent.{name}": digest for name, digest in parents.items()},
        **{f"{DATA}{name}": digest for name, digest in record.data.items()},
    }
    run_id = _run_of(client, run, model, weights)
    model_id = packing.log(client, run, model, run_id)
    _log_metrics(client, model, run_id, model_id, metrics)
    _ensure_name(client, model)
    made = client.create_model_version(
        model.name,
        source=f"models:/{model_id}",
        run_id=run_id,
        tags=about,
        description=_description(model, metrics, record, made_of),
        model_id=model_id,
    )
    # by this tag the model's own page finds its version
    version = json.dumps([{"name": made.name, "version": made.version}])
    client.set_logged_model_tags(model_id, {**made_of, "mlflow.modelVersions": version})
    return Registered(model, int(made.version), weights, parents, metrics, run_id, True, about | made_of, config)


def _record(run: RunInfo, model: Model, weights: str, config: str) -> Record:
    """Of a model that is new in this registry: the run that git's tag of the model names, if it has one, else this run.

    A registry may be new or have lost the version, and nothing that git, bundles or other catalogues say of it changes.
    """
    root, known = run.workspace, tags.find(run.workspace, model.name, weights, config)
    stands = known is not None and known.commit == tags.read(root).get(known.run)
    tag, commit = (known.run, known.commit) if known and stands else (run.tag, run.commit)
    lock = plain_yaml.recorded(repository.file_at(root, commit, "dvc.lock") or "") or {}
    digest = repository.digest_at(root, commit, "dvc.lock") or ""
    return Record(tag, commit, digest, data_of(lock, model.path.as_posix()))


def mark(settings: Settings, marks: Mapping[tuple[str, int], Mapping[str, str]]) -> None:
    """Tag versions, by (model, number), and the runs that trained and evaluated each alone: what became of them.

    The catalogue and the log of releases say it; a registry that does not take it costs a line.
    """
    client, reason = training_run.connect(settings.mlflow_uri)
    try:
        if client is None:
            raise LookupError(reason)
        for (name, number), tags in marks.items():
            for version in client.search_model_versions(f"name = '{name}' AND version_number = {number}"):
                _mark(client, version, tags)
    except Exception as error:
        names = ", ".join(f"{name} v{number}" for name, number in marks)
        say(f"MLflow does not show what became of {names}: {training_run.first_line(error)}")


def _mark(client: Any, version: Any, tags: Mapping[str, str]) -> None:
    measured = {one.run_id for one in logged_model(client, version).metrics or () if one.key.count("/") == 1}
    for key, value in tags.items():
        if version.tags.get(key) != value:
            client.set_model_version_tag(version.name, version.version, key, value)
        for run_id in {version.run_id, *measured}:
            client.set_tag(run_id, key, value)


def _metric(metrics: Mapping[str, float]) -> str:
    """The headline metric in words: "gfwd 0.1672"."""
    key = headline(metrics)
    if key is None or key not in METRICS:
        return "not evaluated"
    return f"{key} {metrics[key]:.4g} {METRICS[key].unit}".rstrip()


def _description(model: Model, metrics: Mapping[str, float], record: Record, made_of: Mapping[str, str]) -> str:
    """A version's page, in Markdown: its numbers, the headline first, and what it was made from."""
    first = headline(metrics)
    names = [name for name in (first, *METRICS) if name and name in METRICS and name in metrics]
    rows = [f"| {name} | {metrics[name]:.4g} {METRICS[name].unit} |" for name in dict.fromkeys(names)]
    table = ["| metric, held-out | |", "|---|---|", *rows] if rows else []
    sources = [f"{name.partition('.')[2]} `{digest[:12]}`" for name, digest in made_of.items() if "." in name]
    made = f"Made by `{record.tag}`, commit `{record.commit[:12]}`, from {', '.join(sources) or 'no recorded data'}."
    return "\n".join([f"{_metric(metrics)}: {model.desc or model.name}", "", made, "", *table])


def version_with(client: Any, name: str, weights: str, config: str) -> Any:
    """The registered version of these weights with this configuration, None if there is none."""
    found = client.search_model_versions(f"name = '{name}' AND tag.{training_run.WEIGHTS} = '{weights}'")
    same = [one for one in found if one.tags.get(training_run.CONFIG, config) == config]
    return min(same, key=lambda version: int(version.version), default=None)


def _restore_run(client: Any, version: Any) -> None:
    """Take back the deletion of the run that a version came from: it is what the version's metrics are kept with."""
    from mlflow.exceptions import MlflowException

    try:
        if client.get_run(version.run_id).info.lifecycle_stage == "deleted":
            client.restore_run(version.run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(
            f"{version.name} v{version.version}: the run {version.run_id} that it came from is gone from MLflow; "
            "delete this version there, then again"
        ) from None


def _run_of(client: Any, run: RunInfo, model: Model, weights: str) -> str:
    """The tracking run of the stage that trained these weights; a run of its own if training was not tracked."""
    experiment = training_run.experiment(client, training_run.family_of(model.stage))
    wanted = f"tags.{training_run.STAGE} = '{model.stage}' AND tags.{training_run.WEIGHTS} = '{weights}'"
    found = client.search_runs([experiment], wanted, order_by=["attributes.start_time DESC"], max_results=1)
    if found:
        return str(found[0].info.run_id)
    tags = {training_run.STAGE: model.stage, training_run.WEIGHTS: weights}
    tags |= {training_run.COMMIT: run.commit, training_run.RUN: run.id}
    made = client.create_run(experiment, tags=tags, run_name=run_name(model.stage, run.id)).info.run_id
    client.set_terminated(made)
    return str(made)


def _log_metrics(client: Any, model: Model, trained: str, model_id: str, metrics: Mapping[str, float]) -> None:
    """Log the evaluation on the model, as its page and comparisons of models show it.

    MLflow keeps such a metric with a run, too: it is the evaluation's, which has these very points already. Of one that
    was not tracked it is the training's, at this moment: another evaluation may have other values at its beginning.
    """
    from mlflow.entities import Metric

    named = final(f"evaluate@{model.evaluation}", {model.section: metrics} if model.section else metrics)
    evaluated = _evaluation(client, model, named)
    where = evaluated or client.get_run(trained)
    at, run_id = evaluated.info.start_time if evaluated else int(time.time() * 1000), where.info.run_id
    rows = [Metric(key, value, at, 0, model_id=model_id, run_id=run_id) for key, value in named.items()]
    client.log_batch(run_id, metrics=rows)


def _evaluation(client: Any, model: Model, named: Mapping[str, float]) -> Any:
    """MLflow's run of the evaluation that gave these very numbers, None if it was not tracked."""
    stage = f"evaluate@{model.evaluation}"
    there = [training_run.experiment(client, training_run.family_of(stage))]
    wanted = f"tags.{training_run.STAGE} = '{stage}'"
    tracked = client.search_runs(there, wanted, order_by=["attributes.start_time DESC"], max_results=LOOKED_AT)
    return next((one for one in tracked if named and named.items() <= one.data.metrics.items()), None)


def _ensure_name(client: Any, model: Model) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model.name, description=model.desc)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
