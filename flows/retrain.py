"""The Prefect flow of a run: one task per stage of the graph, then record, register, release, report.

This module orders, retries and shows; what a stage does is in `dvc.yaml`, how it is started in `flows.process`.
Import it only when something is to run: Prefect takes more than a second to load, and reads its settings from
the environment at that moment.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import State, StateType, TaskRun
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogWorker
from prefect.states import Completed, Crashed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from data.params import UserError
from flows import environment, exhibits, finish, graph, process, workspace
from flows.budget import LOOK_SECONDS, Account
from flows.finish import Release
from flows.graph import Stage
from flows.job import Job
from flows.measure import Meter
from flows.process import StageFailed, Stopped
from flows.progress import Progress
from flows.release import stores
from flows.remote import dispatch, origin
from flows.remote.dispatch import Dispatcher, Ran
from flows.remote.ledger import Usage
from flows.run import RunInfo, StageResult, read_metrics
from flows.spending import Spending

RETRY_SECONDS = 2
T = TypeVar("T")


@dataclass
class Outcome:
    """What came of a run; filled in while it goes, so that a run that is broken off still has its part."""

    run: RunInfo
    results: dict[str, StageResult] = field(default_factory=dict)  # by stage, in the order of their ends
    failures: dict[str, StageFailed] = field(default_factory=dict)
    broken: dict[str, StageResult] = field(default_factory=dict)  # stages that failed or were stopped
    unaffordable: dict[str, str] = field(default_factory=dict)  # stages that the budget did not let start, and why
    spending: Spending = field(default_factory=Spending)
    release: Release = field(default_factory=Release)
    report: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether every stage is up to date."""
        return not (self.failures or self.broken or self.unaffordable)


class RunFailed(Exception):
    """Some stage of the run failed, or the budget ended; the outcome says which."""


def retrain(job: Job, progress: Progress, before_stages: Callable[[], None]) -> Outcome:
    """Run a job and its last steps as a Prefect flow; see `conduct`.

    A run that failed or was interrupted is remembered in the catalogue: it cost something, too.
    """
    workers = dispatch.dispatcher(job) if job.settings.stages == "workers" else None
    outcome = Outcome(job.run)
    try:
        conduct("retrain", job, progress, before_stages, partial(_finish, workers=workers), workers, outcome)
    finally:
        if outcome.results.keys() != {stage.name for stage in job.stages}:
            known = outcome.broken | outcome.results
            results = [known.get(stage.name, StageResult(stage.name, "skipped", 0.0)) for stage in job.stages]
            if any(result.action not in ("current", "skipped") for result in results):
                finish.record_failure(job.settings, job.run, job.stages, results)
    return outcome


def conduct(
    name: str,
    job: Job,
    progress: Progress,
    before_stages: Callable[[], None],
    after_stages: Callable[[Job, Progress, Outcome], None],
    workers: Dispatcher | None = None,
    outcome: Outcome | None = None,
) -> Outcome:
    """Run a job's stages as a Prefect flow of this name, and what comes after them if all of them went well.

    `before_stages` is called when the flow has started and must return for it to go on. Without `workers` the stages
    run on this machine. A failed stage ends in the outcome, not in an exception; KeyboardInterrupt passes through after
    every process of the run has been ended.
    """
    outcome, over = outcome or Outcome(job.run), threading.Event()
    threads: TaskRunner[Any] = ThreadPoolTaskRunner(max_workers=len(job.stages) + 1)

    @flow(
        name=name,
        flow_run_name=job.run.id,
        task_runner=threads,  # as many as there are stages: `_Conductor` counts the cores
        persist_result=False,
        validate_parameters=False,
    )
    def body(commit: str, parameters: dict[str, Any]) -> State:
        before_stages()
        try:
            _Conductor(job, progress, outcome, workers).conduct()
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


def _short(job: Job, outcome: Outcome) -> str:
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


class _Conductor:
    """Starts each stage as soon as its inputs are there and a core is free, the one that holds up most first."""

    def __init__(self, job: Job, progress: Progress, outcome: Outcome, workers: Dispatcher | None) -> None:
        self.job, self.progress, self.outcome, self.workers = job, progress, outcome, workers
        self.slots = workers.slots if workers else job.settings.cores
        on_gpus = [stage.name for stage in job.stages if stage.meta.pool == "gpu"]
        self.account = Account(job.budget, job.estimates, outcome.spending, on_gpus)
        self.gpus = 1 if environment.gpu() else 0  # what a stage of the pool "gpu" holds here
        self.stops = {stage.name: threading.Event() for stage in job.stages}
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.futures: dict[str, PrefectFuture] = {}
        lengths = graph.chain_lengths(job.stages)
        self.waiting = sorted(job.stages, key=lambda stage: -lengths[stage.name])
        self.working: set[str] = set()

    def conduct(self) -> None:
        try:
            self._start()
            while self.working:
                with contextlib.suppress(queue.Empty):
                    self._close(self.ended.get(timeout=self.account.pace))
                for name in self.account.too_much(self.working):
                    self.stops[name].set()  # it writes its checkpoint
                self._start()
        except BaseException:
            for stop in self.stops.values():  # each task ends its stage's processes; leaving the flow waits for them
                stop.set()
            raise
        for stage in self.waiting:
            if self._ready(stage):
                self.outcome.unaffordable[stage.name] = self.account.refuses(stage.name, ())

    def _start(self) -> None:
        for stage in list(self.waiting):
            if self._ready(stage) and len(self.working) < self.slots and self._affordable(stage):
                self.waiting.remove(stage)
                self.working.add(stage.name)
                future = self._task(stage).submit(stage.name, wait_for=[self.futures[name] for name in stage.upstream])
                self.futures[stage.name] = future
                future.add_done_callback(lambda _, name=stage.name: self.ended.put(name))

    def _ready(self, stage: Stage) -> bool:
        return all(name in self.outcome.results for name in stage.upstream)

    def _affordable(self, stage: Stage) -> bool:
        return self.job.plan.action(stage.name) == "current" or not self.account.refuses(stage.name, self.working)

    def _task(self, stage: Stage) -> Any:
        decorate = task(
            name=stage.name,
            task_run_name=stage.name,
            retries=stage.meta.retries,
            retry_delay_seconds=RETRY_SECONDS,
            retry_condition_fn=_worth_retrying,
            cache_policy=NO_CACHE,
            persist_result=False,
            # No timeout_seconds: Prefect cannot interrupt a thread that waits for a process; flows.process does it.
            # No tags: for a tagged task Prefect asks its server for concurrency slots, which took up to 7 s here.
        )
        return decorate(self._work)

    def _work(self, name: str) -> State:
        """The body of every stage's task."""
        stage = next(stage for stage in self.job.stages if stage.name == name)
        began = time.monotonic()
        ran = Ran("current")
        log = self.job.folder / "logs" / f"{name}.log"
        if self.job.plan.action(name) != "current":
            self.progress.started(name)
            try:
                ran = self._run(stage, log)
            except (StageFailed, Stopped) as error:
                self._break(name, error, time.monotonic() - began, log)
                raise
            self.outcome.failures.pop(name, None)
            self.outcome.broken.pop(name, None)
        seconds = time.monotonic() - began if ran.action != "current" else 0.0
        if self.workers:
            self.workers.show(stage)
        metrics: dict[str, float] = {}
        for path in stage.metrics:
            metrics |= read_metrics(self.job.run.workspace / path)
        kept = log if log.exists() else None
        result = StageResult(name, ran.action, seconds, metrics, None, kept, self._used(name), ran.host)
        try:
            exhibits.show(stage, result, self.job.run.workspace)
        except Exception as error:  # a picture that cannot be shown must not cost a stage that worked
            get_run_logger().warning("metrics and figures of %s are not shown here: %s", name, error)
        self.outcome.results[name] = result
        return Completed(name={"ran": "Completed", "restored": "Restored", "current": "Unchanged"}[ran.action])

    def _run(self, stage: Stage, log: Path) -> Ran:
        logger = get_run_logger()

        def say(text: str, whole: bool) -> None:
            self.progress.says(stage.name, text)
            if whole:
                logger.info("%s", text)

        stop = self.stops[stage.name]
        if self.workers:
            return self.workers.run(stage, log, say, stop, partial(self.outcome.spending.attempt, stage.name))
        meter = Meter(self.gpus if stage.meta.pool == "gpu" else 0)
        self.outcome.spending.attempt(stage.name, self._reading(meter))
        where = (self.job.run.workspace, self.job.environment, log)
        return Ran(process.run(stage.name, *where, say, stop, stage.meta.timeout, meter))

    def _reading(self, meter: Meter) -> Callable[[], Usage]:
        """What an attempt has cost so far; CPU time is known at its end, before that only by looking."""
        last = 0.0

        def looked() -> Usage:
            nonlocal last
            if time.monotonic() - last > LOOK_SECONDS:  # it goes through all processes: 4 ms
                last = time.monotonic()
                meter.look()
            return meter.usage()

        return looked if "cpu" in self.job.budget.limits else meter.usage

    def _used(self, name: str) -> Usage | None:
        return self.outcome.spending.of(name)

    def _break(self, name: str, error: StageFailed | Stopped, seconds: float, log: Path) -> None:
        """Note that a stage failed or was stopped; a retry may still undo that."""
        if isinstance(error, StageFailed):
            self.outcome.failures[name] = error
        action = "failed" if isinstance(error, StageFailed) else "stopped"
        kept = log if log.exists() else None
        self.outcome.broken[name] = StageResult(name, action, seconds, log=kept, usage=self._used(name))

    def _close(self, name: str) -> None:
        """Note the end of a stage; behind a failed one nothing is started, beside it everything goes on."""
        self.working.discard(name)
        if name in self.outcome.results:
            self.progress.ended(self.outcome.results[name])
            return
        if name not in self.outcome.broken:  # not the stage's fault: Prefect itself could not do it
            error = self.futures[name].result(raise_on_failure=False)
            log = self.job.folder / "logs" / f"{name}.log"
            self._break(name, StageFailed(name, f"Prefect could not run its task ({error})", log), 0.0, log)
        behind = graph.downstream(self.job.stages, [name])
        self.waiting = [stage for stage in self.waiting if stage.name not in behind]
        self.progress.ended(self.outcome.broken[name])


def _worth_retrying(_: Any, __: TaskRun, state: State) -> bool:
    """A crash may be bad luck; a mistake in the input or a stopped run is not."""
    error = state.result(raise_on_failure=False)
    return not isinstance(error, Stopped) and getattr(error, "retry", True)


def _finish(job: Job, progress: Progress, outcome: Outcome, workers: Dispatcher | None) -> None:
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
    results = step("find tracking runs", lambda: finish.with_tracking(settings, job.run, results))
    outcome.results = {result.name: result for result in results}
    job.check()
    run = outcome.run = step("record", lambda: finish.record(settings, job.run, stages, results))
    push_tags()
    with stores.opened(settings) as places:
        made = step("register", lambda: finish.register(places, run, stages, results))
        made = step("judge", lambda: finish.judge(places, run, made))
        job.check()
        outcome.release = made = step("release", lambda: finish.release(places, run, made))
    push_tags()
    outcome.report = step("report", lambda: finish.report(settings, run, results, made))
    finish.note(settings, run, results, finished=True)
