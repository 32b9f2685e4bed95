"""Reproductions: one worktree and one run of the graph for all models of a commit; the verdict is kept in the journal
of the catalogue, on the version in MLflow, and as JSON beside the logs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from data.core.params import UserError
from flows import state
from flows.catalogue import database, journal
from flows.catalogue.alarms import Alarm, sound
from flows.pipeline.lock import Entry, input_digest, output_digest, read_lock
from flows.release import notify
from flows.reproduce import compare, prove, remake, report, workers
from flows.reproduce.compare import FAILED, Tolerance
from flows.reproduce.prove import Proof
from flows.reproduce.remake import Remake, Source
from flows.reproduce.target import Target
from flows.retrain.progress import Progress
from flows.settings import Settings
from flows.stage.process import StageFailed
from models.tracking import training_run
from models.tracking.embedded import database_file
from models.tracking.experiments import REPRODUCED


@dataclass(frozen=True)
class Reproduction:
    """What came of making the models of one commit again."""

    proof: Proof
    failures: tuple[StageFailed, ...]
    unrecorded: tuple[str, ...]  # where the verdict could not be noted, and why
    folder: Path  # its logs and proof.json


def groups(targets: Iterable[Target], source: Source) -> list[list[Target]]:
    """Which targets are made in one go: from scratch those of one commit, from their inputs each alone."""
    ordered = sorted(targets, key=lambda target: (target.commit, target.model.name))
    if source == "inputs":
        return [[target] for target in ordered]
    return [list(group) for _, group in groupby(ordered, key=lambda target: target.commit)]


def reproduce(
    settings: Settings, targets: Sequence[Target], source: Source, tolerance: Tolerance, progress: Progress
) -> Reproduction:
    """Make models of one commit again, compare and record. What a failed attempt finished is kept for the next."""
    began = time.monotonic()
    with ExitStack() as stack:
        job, dispatcher = stack.enter_context(remake.prepared(settings, targets, source)), None
        if job.again:
            job, dispatcher = stack.enter_context(workers.ready(job, progress.note))
        for line in _beforehand(job):
            progress.note(line)
        outcome = remake.run(job, progress, dispatcher)
        if dispatcher:
            workers.bring_compared(job, dispatcher)
        made = read_lock(job.run.workspace)
        proof = prove.prove(job, made, outcome, tolerance, time.monotonic() - began)
        job.check()
        unrecorded = record(job, made, proof)
        if proof.verdict != FAILED:
            remake.forget(job)
            if dispatcher:
                workers.forget(job, dispatcher)
        return Reproduction(proof, tuple(outcome.failures.values()), tuple(unrecorded), job.folder)


def _beforehand(job: Remake) -> list[str]:
    """What is to be known before anything runs."""
    names = ", ".join(target.title for target in job.targets)
    again = "1 stage" if len(job.stages) == 1 else f"{len(job.stages)} stages"
    lines = [f"{names}: {again} of commit {job.run.commit[:12]} (by {job.targets[0].by}) run again"]
    if job.again:
        pools = sorted({stage.meta.pool for stage in job.stages})
        lines.append(f"on the workers of {' and '.join(f'pool {pool}' for pool in pools)}")
    if any(stage.name not in job.then for stage in job.stages):
        lines.append("the run did not note its environment: equal bytes are proof, other bytes may be the machine's")
    lines += [f"other environment: {difference}" for difference in job.differences(job.ran())]
    if job.here:
        lines.append(compare.beforehand(job.stages, job.then, job.ran()))
    for stage, said in job.altered.items():
        lines.append(f"{stage} of this commit is not what its dvc.lock records: {'; '.join(said)}")
    return lines


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
        if compare.reasons(job.stages, job.then, proof.ran).get(stage.stage):
            continue
        then, now = job.lock[stage.stage], made[stage.stage]
        if not stage.identical and input_digest(then) == input_digest(now):
            outputs = output_digest(then), output_digest(now)
            runs, machines = (job.targets[0].commit, job.run.id), [one.machine if one else "" for one in (before, here)]
            yield Alarm(stage.stage, input_digest(now), outputs, runs, (machines[0], machines[1]))


def _in_catalogue(settings: Settings, proof: Proof, found: list[Alarm]) -> Iterator[str]:
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
