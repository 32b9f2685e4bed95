"""The Prefect flow of a run: its stages (`flows.retrain.scheduler`), then record, register, release, report.

What a stage does is in `dvc.yaml`, how it is started in `flows.stage.process`. Import this only when something is to
run: Prefect takes more than a second to load, and reads its settings from the environment at that moment.
"""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import httpx
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import State, StateType
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.states import Completed, Crashed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from data.core.params import UserError
from flows.pipeline import run_record, workspace
from flows.pipeline.job import Job
from flows.pipeline.run import StageResult
from flows.release import of_run, origin, stores
from flows.release.outcome import RunOutcome
from flows.retrain import finalise, report
from flows.retrain.progress import Progress
from flows.retrain.scheduler import Conductor
from flows.workers.dispatch import Dispatcher

T = TypeVar("T")


class RunFailed(Exception):
    """Some stage of the run failed, or the budget ended; the outcome says which."""


def retrain(job: Job, progress: Progress, before_stages: Callable[[], None]) -> RunOutcome:
    """Run a job and its last steps as a Prefect flow; see `conduct`.

    A run that failed or was interrupted is remembered in the catalogue: it cost something, too.
    """
    workers = Dispatcher(job) if job.settings.stages == "workers" else None
    outcome = RunOutcome(job.run)
    try:
        conduct("retrain", job, progress, before_stages, partial(_finish, workers=workers), workers, outcome)
    finally:
        if outcome.results.keys() != {stage.name for stage in job.stages}:
            known = outcome.broken | outcome.results
            results = [known.get(stage.name, StageResult(stage.name, "skipped", 0.0)) for stage in job.stages]
            if any(result.action not in ("current", "skipped") for result in results):
                finalise.record_failure(job.settings, job.run, job.stages, results)
    return outcome


def conduct(
    name: str,
    job: Job,
    progress: Progress,
    before_stages: Callable[[], None],
    after_stages: Callable[[Job, Progress, RunOutcome], None],
    workers: Dispatcher | None = None,
    outcome: RunOutcome | None = None,
) -> RunOutcome:
    """Run a job's stages as a Prefect flow of this name, and what comes after them if all of them went well.

    `before_stages` is called when the flow has started and must return for it to go on. Without `workers` the stages
    run on this machine. A failed stage ends in the outcome, not in an exception; KeyboardInterrupt passes through after
    every process of the run has been ended.
    """
    outcome, over = outcome or RunOutcome(job.run), threading.Event()
    threads: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=len(job.stages) + 1)

    @flow(
        name=name,
        flow_run_name=job.run.id,
        task_runner=threads,  # as many as there are stages: `Conductor` counts the cores
        persist_result=False,
        validate_parameters=False,
    )
    def body(commit: str, parameters: dict[str, Any]) -> State:
        before_stages()
        try:
            Conductor(job, progress, outcome, workers).conduct()
        finally:
            if workers:
                workers.close()
        if not outcome.whole:
            over.set()
            raise RunFailed(_short(job, outcome))
        after_stages(job, progress, outcome)
        over.set()
        return Completed(message=f"{job.run.tag}")

    _close_dead(job)
    try:
        body(commit=job.run.base_commit, parameters=dict(job.changes))
    except RunFailed:
        pass
    except httpx.TransportError as error:  # Prefect's client has tried for a minute
        if not over.is_set():
            raise UserError(
                f"Prefect's server does not answer ({type(error).__name__}); start it, then again"
            ) from None
        progress.note("Prefect's server has not answered for a minute: its pages will show the run as running")
    finally:
        _send_rest()
    return outcome


def _short(job: Job, outcome: RunOutcome) -> str:
    """Why a run did not reach its end, for Prefect's pages."""
    if outcome.failures:
        return f"failed: {', '.join(outcome.failures)}"
    return f"the budget of {job.budget} ended before {', '.join([*outcome.broken, *outcome.unaffordable])}"


def _close_dead(job: Job) -> None:
    """Mark runs as crashed whose process was killed: nobody else would ever end them in Prefect's pages."""
    if job.settings.prefect_api:
        return  # a server for several machines: whether a run of another one lives cannot be seen from here
    living = workspace.living(job.settings)
    open_states = {"type": {"any_": [StateType.RUNNING, StateType.PENDING]}}
    crashed: State = Crashed(message="Its process was killed.")
    named = FlowFilter.model_validate({"name": {"any_": ["retrain", "reproduce"]}})  # these name runs by worktrees
    still_open = FlowRunFilter.model_validate({"state": open_states})
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_filter=named, flow_run_filter=still_open):
            if run.name in living:
                continue
            tasks = client.read_task_runs(
                flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run.id]}}),
                task_run_filter=TaskRunFilter.model_validate({"state": open_states}),
            )
            for left in tasks:
                client.set_task_run_state(left.id, crashed, force=True)
            client.set_flow_run_state(run.id, crashed, force=True)


def _send_rest() -> None:
    """Send Prefect's last logs and events now: at the process's exit its server would be gone already."""
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)


def _finish(job: Job, progress: Progress, outcome: RunOutcome, workers: Dispatcher | None) -> None:
    """The last steps, each a task of its own so that Prefect shows how long it took and what went wrong.

    After `job.check` this process is the one that ends the run: before its tag, and again before its release.
    """

    def step(name: str, function: Callable[[], T]) -> T:
        progress.note(f"{name} ...")
        done: T = task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)(function)()
        return done

    def push_tags() -> None:
        if workers:
            step("push tags", lambda: origin.publish(settings.root, outcome.run.commit))

    settings, stages = job.settings, job.stages
    if workers:
        step("bring outputs", workers.deliver)
    results = tuple(outcome.results[stage.name] for stage in stages)
    results = step("find tracking runs", lambda: finalise.with_tracking(settings, job.run, stages, results))
    outcome.results = {result.name: result for result in results}
    step("verify", lambda: finalise.verify(settings, job.run, stages, results))
    job.check()
    run = outcome.run = step("record", lambda: finalise.record(settings, job.run, stages, results, job.newest))
    push_tags()
    with stores.opened(settings) as places:
        made = step("register", lambda: of_run.register(places, run, stages, results))
        made = step("judge", lambda: of_run.judge(places, run, made))
        job.check()
        outcome.release = made = step("release", lambda: of_run.release(places, run, made))
    push_tags()
    outcome.report = step("report", lambda: report.write(run, results, made, settings))
    run_record.save(settings, run, results, finished=True)
