"""The stages of a run in their order: each a Prefect task that waits for a process here, or for a worker.

Import it only when something is to run, as `flows.retrain.flow`.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.pipeline import environment, graph, parameters
from flows.pipeline.families import read_metrics
from flows.pipeline.graph import Stage
from flows.pipeline.job import Job
from flows.pipeline.run import StageResult
from flows.release.outcome import RunOutcome
from flows.retrain import task_artifacts
from flows.retrain.progress import Progress
from flows.stage import process
from flows.stage.budget import LOOK_SECONDS, Account
from flows.stage.measure import Meter
from flows.stage.process import StageFailed, Stopped
from flows.stage.progress_artifact import Bar
from flows.stage.spending import Usage
from flows.workers.dispatch import Dispatcher, Ran

RETRY_SECONDS = 2


class Conductor:
    """Starts each stage as soon as its inputs are there and a core is free, the one that holds up most first."""

    def __init__(self, job: Job, progress: Progress, outcome: RunOutcome, workers: Dispatcher | None) -> None:
        self.job, self.progress, self.outcome, self.workers = job, progress, outcome, workers
        self.slots = workers.slots if workers else job.settings.cores
        on_gpus = [stage.name for stage in job.stages if stage.meta.pool == "gpu"]
        likely = {name: one.usage for name, one in job.estimates.items()}
        self.account = Account(job.budget, likely, outcome.spending, on_gpus)
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
            # No timeout_seconds: Prefect cannot interrupt a thread that waits for a process; flows.stage does it.
            # No tags: for a tagged task Prefect asks its server for concurrency slots, which took up to 7 s here.
        )
        return decorate(self._work)

    def _work(self, name: str) -> State:
        """The body of every stage's task."""
        stage = next(stage for stage in self.job.stages if stage.name == name)
        began = time.monotonic()
        ran = Ran("current")
        log = self.job.folder / "logs" / f"{name}.log"
        planned = self.job.plan.action(name)
        if planned == "restore" and not self.workers:
            ran = Ran("restored")  # before the first stage began (`Store.lay_out`)
        elif planned != "current":
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
        about = (self._used(name), ran.host, ran.environment)
        result = StageResult(name, ran.action, seconds, metrics, None, kept, *about)
        try:
            task_artifacts.show(stage, result, self.job.run.workspace)
        except Exception as error:  # a picture that cannot be shown must not cost a stage that worked
            get_run_logger().warning("metrics and figures of %s are not shown here: %s", name, error)
        self.outcome.results[name] = result
        return Completed(name={"ran": "Completed", "restored": "Restored", "current": "Unchanged"}[ran.action])

    def _run(self, stage: Stage, log: Path) -> Ran:
        logger = get_run_logger()
        with Bar(stage.name) as bar:

            def say(text: str, whole: bool) -> None:
                self.progress.says(stage.name, text)
                bar.says(text)
                if whole:
                    logger.info("%s", text)

            return self._ran(stage, log, say)

    def _ran(self, stage: Stage, log: Path, say: Callable[[str, bool], None]) -> Ran:
        """Run a stage on a worker, or here."""
        stop = self.stops[stage.name]
        if self.workers:
            return self.workers.run(stage, log, say, stop, partial(self.outcome.spending.attempt, stage.name))
        meter = Meter(self.gpus if stage.meta.pool == "gpu" else 0)
        self.outcome.spending.attempt(stage.name, self._reading(meter))
        root = self.job.run.workspace
        variables = {**self.job.environment, **parameters.source_of(root, stage.name)}
        return Ran(process.run(stage.name, root, variables, log, say, stop, stage.meta.timeout, meter))

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
