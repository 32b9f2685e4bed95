"""What a run did with data, as runs of MLflow's experiment "data": the stages of data/ do not know of MLflow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows.catalogue import datasets
from flows.catalogue.costs import MADE
from flows.console import say
from flows.pipeline import parameters
from flows.pipeline.graph import Stage
from flows.pipeline.lock import read_lock
from flows.pipeline.run import RunInfo, StageResult
from models.tracking import training_run
from models.tracking.experiments import GATE, experiment, family_of
from models.tracking.names import run_name


def track(client: Any, ran: RunInfo, stages: Sequence[Stage], results: Sequence[StageResult]) -> None:
    """Record each data stage that made something in this run; a server that does not take it costs a line."""
    made = {one.name: one for one in results if one.action in MADE and family_of(one.name) == "data"}
    if not made:
        return
    try:
        values = parameters.read(ran.workspace)
        numbers = dict(_numbers(ran, stages, results))
        for stage in (one for one in stages if one.name in made):
            _record(client, ran, stage, made[stage.name], values, *numbers.get(stage.name, ({}, "")))
    except Exception as error:
        say(f"MLflow does not show the data of run {ran.id}: {training_run.first_line(error)}")


def _numbers(
    ran: RunInfo, stages: Sequence[Stage], results: Sequence[StageResult]
) -> Iterator[tuple[str, tuple[dict[str, float], str]]]:
    """By stage, what it made in numbers, and what validation said of it."""
    by_name = {one.name: one for one in results}
    for one in datasets.of_run(ran.workspace, stages, by_name, read_lock(ran.workspace)):
        found: dict[str, float] = {"data/samples": one.rows, "data/megabytes": one.bytes / 1e6}
        yield one.stage, (found | ({"data/photographs": len(one.photographs)} if one.photographs else {}), one.verdict)
    path = ran.workspace / datasets.REPORT
    if path.exists():
        report = json.loads(path.read_text())
        names = ("expectations", "warnings", "critical_failed")
        passed = "passed" if report["success"] else "failed"
        yield datasets.VALIDATE, ({f"data/{name}": report[name] for name in names if name in report}, passed)


def _record(
    client: Any,
    ran: RunInfo,
    stage: Stage,
    result: StageResult,
    values: Mapping[str, Any],
    numbers: Mapping[str, float],
    verdict: str,
) -> None:
    began = int((time.time() - result.seconds) * 1000)
    about = {training_run.STAGE: stage.name, training_run.COMMIT: ran.commit, training_run.RUN: ran.id, GATE: verdict}
    tags = {**about, "mlflow.source.name": stage.name}
    name = run_name(stage.name, ran.id)
    run = client.create_run(experiment(client, family_of(stage.name)), began, tags, name)
    tracker = training_run.MlflowTracker(client, run.info.run_id, stage.name, began)
    sections = [name for name in stage.params if name in values]
    tracker.params({name: values[name] for name in sections})
    tracker.metrics(numbers)
    for figure in sorted((ran.workspace / "artifacts" / stage.name / "figures").glob("*.png")):
        tracker.figure(figure)
    tracker.close("FINISHED")
