"""Keep a reproduction's verdict: in the catalogue's journal, on the version in MLflow, as JSON beside its logs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from data.core.params import UserError
from flows import state
from flows.catalogue import journal
from flows.catalogue.alarms import Alarm, sound
from flows.pipeline.lock import Entry, input_digest, output_digest
from flows.release import notify
from flows.reproduce import expected, report
from flows.reproduce.compare import FAILED
from flows.reproduce.prove import Proof
from flows.reproduce.remake import Remake
from flows.settings import Settings
from models.tracking import training_run
from models.tracking.embedded import database_file
from models.tracking.experiments import REPRODUCED


def record(job: Remake, made: Mapping[str, Entry], proof: Proof) -> list[str]:
    """Record a proof wherever something can be recorded; returns where it could not be, in words."""
    state.write(job.folder / "proof.json", report.to_json(proof))
    found = list(alarms(job, made, proof))
    notify.tell(job.settings, notify.of_alarms(found, job.run.id, job.run.trigger))
    return [*_in_catalogue(job.settings, proof, found), *_in_registry(job.settings, proof)]


def alarms(job: Remake, made: Mapping[str, Entry], proof: Proof) -> Iterator[Alarm]:
    """The stages that gave two outputs for one input, where the environment cannot be the reason."""
    for stage in proof.stages:
        before, here = job.then.get(stage.stage), proof.ran.get(stage.stage)
        if expected.reasons(job.stages, job.then, proof.ran).get(stage.stage):
            continue
        then, now = job.lock[stage.stage], made[stage.stage]
        if not stage.identical and input_digest(then) == input_digest(now):
            outputs = output_digest(then), output_digest(now)
            runs, machines = (job.targets[0].commit, job.run.id), [one.machine if one else "" for one in (before, here)]
            yield Alarm(stage.stage, input_digest(now), outputs, runs, (machines[0], machines[1]))


def _in_catalogue(settings: Settings, proof: Proof, found: list[Alarm]) -> Iterator[str]:
    from flows.catalogue import database

    try:
        with database.open(settings).begin() as session:
            for model in proof.models:
                journal.append(session, "reproduction", model.target.title, report.model_json(model, proof))
            for alarm in found:
                sound(session, alarm)
    except UserError as error:
        yield f"not in the journal: {error}"


def _in_registry(settings: Settings, proof: Proof) -> Iterator[str]:
    """Tag each version that this registry has, found by its weights: numbers may be another registry's."""
    file = database_file(settings.mlflow_uri)
    if file is not None and not file.exists():
        yield "not in a registry: this clone has none"
        return
    client, reason = training_run.connect(settings.mlflow_uri)
    if client is None:
        yield f"not in the registry: {reason}"
        return
    for model in proof.models:
        name, weights = model.target.model.name, model.target.weights
        wanted = f"name = '{name}' AND tag.{training_run.WEIGHTS} = '{weights}'"
        try:
            found = client.search_model_versions(wanted) if weights else []
            for version in found:
                client.set_model_version_tag(name, version.version, REPRODUCED, _tag(model.verdict, proof))
                client.set_tag(version.run_id, REPRODUCED, _tag(model.verdict, proof))
        except Exception as error:  # a verdict stands whether or not the registry answers
            yield f"not in the registry: {training_run.first_line(error)}"
            return
        if not found:
            yield f"not in the registry: it has no {name} of weights {weights[:12] or 'that the tag names'}"


def _tag(verdict: str, proof: Proof) -> str:
    """ "identical, 2026-11-21, x86_64 AuthenticAMD avx512" """
    words = "could not be run" if verdict == FAILED else verdict
    return f"{words}, {datetime.now(UTC):%Y-%m-%d}, {proof.here.machine}"
