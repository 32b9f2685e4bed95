"""A Prefect worker that runs stages from its own warm process, one at a time, and outlives everything around it.

    worker.serve(host, {"nightly": "flows.schedules.deployed.retraining"})      # until SIGTERM

Prefect's worker starts an engine process for each run, which takes seconds, and gives up when its server has been
away for a minute. This one polls and beats in a loop of its own that waits for the server with growing pauses, while
its stage goes on. Asked to end, it lets the stage write a checkpoint, gives the attempt back, and is gone in 20 s.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import anyio
import httpx
from anyio import to_thread
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed, Failed, Running
from prefect.utilities.processutils import command_to_string
from prefect.workers.base import BaseWorker
from prefect.workers.process import (
    ProcessJobConfiguration,
    ProcessVariables,
    ProcessWorker,
    ProcessWorkerResult,
)

from data.core.params import UserError
from flows.console import ends, say
from flows.pipeline import environment
from flows.remote import evict, execute, ledger, pools, refuse, roster, stage
from flows.remote.execute import Host
from flows.remote.ledger import Outcome

POLL_SECONDS = 0.5  # between looks for work, while a run is under way
LULL_SECONDS, IDLE_SECONDS = 120.0, 2.0  # so long without work, and looks are so far apart: many workers look
HEARTBEAT_SECONDS = 3  # three missed ones, and nobody waits for this worker
LONGEST_PAUSE = 15.0  # between calls to a server that is away
LEAVE_SECONDS = 16.0  # after which the attempt is given back whatever the stage does
FLOW_SECONDS = 12.0  # of them, for the flows to end by themselves
DAY = 86_400.0  # runs that are due tomorrow by this machine's clock are due now by the server's


class _Serving:
    """What both kinds of workers add to Prefect's: a loop that survives its server."""

    host: Host
    leave: threading.Event
    worked = float("-inf")  # when it last had something to do

    async def serve(self: Any) -> None:
        """Poll and beat until the worker is to leave; what runs goes on meanwhile."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._again, self.sync_with_backend, HEARTBEAT_SECONDS)
            group.start_soon(self._again, self._poll, POLL_SECONDS)
            while not self.leave.is_set():
                await anyio.sleep(0.1)
            group.cancel_scope.cancel()

    async def _again(self: Any, call: Callable[[], Coroutine[Any, Any, Any]], seconds: float) -> None:
        pause, away = seconds, False
        while True:
            try:
                await call()
                if away:
                    say(f"worker {self.name}: the Prefect server is back")
                    with contextlib.suppress(UserError):  # perhaps without its database
                        await to_thread.run_sync(pools.ensure)
                pause, away = seconds, False
            except (httpx.HTTPError, OSError) as error:
                if isinstance(error, httpx.HTTPStatusError) and error.response.status_code in (401, 403):
                    raise
                if not away:
                    say(f"worker {self.name}: the Prefect server does not answer ({_words(error)}); trying again")
                pause, away = min(LONGEST_PAUSE, max(pause, 0.5) * 2), True
            await anyio.sleep(pause * random.uniform(0.7, 1.3))

    async def _poll(self: Any) -> None:
        if time.monotonic() - self.worked > LULL_SECONDS:
            await anyio.sleep(IDLE_SECONDS)
        if self._limiter is None or self._limiter.available_tokens > 0:
            await self.get_and_submit_flow_runs()


class StageWorker(_Serving, BaseWorker[ProcessJobConfiguration, ProcessVariables, ProcessWorkerResult]):
    """Serves a pool of stages."""

    type = "process"
    job_configuration = ProcessJobConfiguration
    job_configuration_variables = ProcessVariables

    def __init__(self, host: Host, leave: threading.Event) -> None:
        super().__init__(
            host.pool,
            name=host.name,
            limit=1,
            prefetch_seconds=DAY,
            create_pool_if_not_found=False,
            heartbeat_interval_seconds=HEARTBEAT_SECONDS,
        )
        self.host, self.leave, self.entry = host, leave, _entry(host)
        self.place = ""  # of the attempt it works on

    @classmethod
    def __dispatch_key__(cls) -> str:
        return "remint-stage"  # Prefect's own worker stays the one for type "process"

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Take a run that Prefect says is due. Prefect's own way asks its server eight times more, to no use here."""
        try:
            if await self._propose_pending_state(flow_run):  # only one worker gets it
                await self.run(flow_run)
        finally:
            self.worked = time.monotonic()
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration | None = None,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Make the attempt that the flow run names, in a thread, and tell Prefect what came of it."""
        await self._tell(flow_run, Running(message=f"on {self.name} ({socket.gethostname()})"))
        log = self.get_flow_run_logger(flow_run)
        self.place = str((flow_run.parameters or {}).get("place", ""))

        def hear(text: str, whole: bool) -> None:
            if whole:
                log.info("%s", text)

        say(f"worker {self.name}: begins {flow_run.name}")
        with anyio.CancelScope(shield=True):  # the attempt is closed by what it does, never by Prefect
            ended = await to_thread.run_sync(self._attempt, flow_run, hear)
            self.place = ""
            state = stage.state(ended)
            say(f"worker {self.name}: {flow_run.name}: {state.name}: {state.message}")
            await self._tell(flow_run, state)
        return ProcessWorkerResult(status_code=0, identifier=str(os.getpid()))

    def _attempt(self, flow_run: FlowRun, hear: execute.Hear) -> execute.Ended:
        store = ledger.open(self.host.settings).store
        with contextlib.suppress(UserError):
            roster.put(store, replace(self.entry, stage=flow_run.name))
        try:
            refuse.no_variables(flow_run.job_variables, "the flow run")
            return execute.attempt(self.host, self.place, self.leave, hear)
        except refuse.Refused as error:
            return execute.Ended(Outcome("refused", self.name, why=str(error)), True)
        except UserError as error:  # the ledger has been away for long
            return execute.Ended(Outcome("failed", self.name, why=str(error)), False)
        finally:
            with contextlib.suppress(UserError):
                roster.put(store, self.entry)

    async def _tell(self, flow_run: FlowRun, state: State[Any]) -> None:
        """Show a state in Prefect. What counts is in the ledger: a server that is away for long misses it."""
        until, pause = time.monotonic() + 300, 0.5
        while True:
            try:
                await self.client.set_flow_run_state(flow_run.id, state, force=True)
            except ObjectNotFound:
                return
            except httpx.HTTPError:
                if time.monotonic() > until or self.leave.is_set():
                    return
                await anyio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
            else:
                return


class FlowWorker(_Serving, ProcessWorker):
    """Serves the pool of orchestrating flows: each in a process of its own, in this clone, any number at once."""

    def __init__(self, host: Host, leave: threading.Event, declared: Mapping[str, str]) -> None:
        super().__init__(
            host.pool,
            name=host.name,
            create_pool_if_not_found=False,
            heartbeat_interval_seconds=HEARTBEAT_SECONDS,
        )
        self.host, self.leave, self.entry, self.declared = host, leave, _entry(host), declared
        self.place = ""
        self.running: dict[UUID, str] = {}

    @classmethod
    def __dispatch_key__(cls) -> str:
        return "remint-flows"

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Run a declared flow; nothing of what is run is taken from the server, whoever may have written it there."""
        deployment = await self.client.read_deployment(flow_run.deployment_id) if flow_run.deployment_id else None
        try:
            entrypoint = refuse.flow_run(flow_run, deployment, self.declared)
        except refuse.Refused as error:
            say(f"worker {self.name}: {flow_run.name} is refused: {error}")
            refused: State[Any] = Failed(name="Refused", message=str(error))
            await self.client.set_flow_run_state(flow_run.id, refused, force=True)
            if task_status is not None:
                task_status.started(0)
            return ProcessWorkerResult(status_code=0, identifier="refused")
        configuration = ProcessJobConfiguration(
            command=command_to_string([sys.executable, "-m", "prefect.engine"]),
            working_dir=self.host.settings.root,
            env={"PREFECT__FLOW_ENTRYPOINT": entrypoint},
        )
        configuration.prepare_for_flow_run(flow_run)
        say(f"worker {self.name}: begins {flow_run.name}")
        self.running[flow_run.id] = flow_run.name
        try:  # without its deployment, from which Prefect's worker would load a flow once more if this one crashes
            result = await super().run(flow_run.model_copy(update={"deployment_id": None}), configuration, task_status)
        finally:
            self.worked = time.monotonic()
            self.running.pop(flow_run.id, None)
        await to_thread.run_sync(evict.tidy, self.host.settings, self.name, self.leave)
        return result

    async def end_flows(self) -> None:
        """Ask every flow to end, which gives back its stages; what takes too long is killed, and shown as crashed."""
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with anyio.move_on_after(FLOW_SECONDS):
            while self.running:
                await anyio.sleep(0.1)
        for identifier in list(self.running):
            with contextlib.suppress(httpx.HTTPError):
                crashed: State[Any] = Crashed(message=f"Its worker {self.name} was asked to end.")
                await self.client.set_flow_run_state(identifier, crashed, force=True)
        if self._runs_task_group is not None:
            self._runs_task_group.cancel_scope.cancel()


def serve(host: Host, declared: Mapping[str, str]) -> None:
    """Serve the host's pool until SIGTERM or Ctrl-C. PREFECT_API_URL is set, and the pool is there.

    declared: the entry point of each deployment that a worker of the pool `flows` runs, and of no other.
    """
    leave = threading.Event()
    anyio.run(partial(_serve, host, leave, declared))


async def _serve(host: Host, leave: threading.Event, declared: Mapping[str, str]) -> None:
    async with _leaving(host, leave) as ends:
        pause = 0.5
        while not leave.is_set():
            flows = host.pool == pools.FLOWS
            worker = FlowWorker(host, leave, declared) if flows else StageWorker(host, leave)
            ends.append(worker)
            try:
                async with worker:
                    with contextlib.suppress(UserError):
                        roster.put(ledger.open(host.settings).store, worker.entry)
                    say(f"worker {host.name} serves pool {host.pool} with {host.devices}")
                    await worker.serve()
                    if isinstance(worker, FlowWorker):
                        await worker.end_flows()
                pause = 0.5
            except Exception as error:
                if leave.is_set():
                    break
                say(f"worker {host.name}: {_words(error)}; starting again")
                await anyio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)
    _forget(host)


@contextlib.asynccontextmanager
async def _leaving(host: Host, leave: threading.Event) -> AsyncIterator[list[StageWorker | FlowWorker]]:
    """What ends a command sets `leave`; if the worker is still there after a while, its attempt is given back."""
    workers: list[StageWorker | FlowWorker] = []

    def hurry() -> None:
        time.sleep(LEAVE_SECONDS)
        for pid in _children():  # the stage leads a group of its own
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        place = workers[-1].place if workers else ""
        if place:
            with contextlib.suppress(Exception):
                book = ledger.open(host.settings)
                why = f"worker {host.name} was asked to end, and its stage took too long to"
                book.close(book.attempt(place), Outcome("given back", host.name, socket.gethostname(), why))
        say(f"worker {host.name}: ends without waiting any longer; the next start cleans up")
        sys.stderr.flush()
        os._exit(1)

    def ask(number: int, frame: Any) -> None:
        if not leave.is_set():
            leave.set()
            say(f"worker {host.name}: was asked to end; giving back what it works on")
            threading.Thread(target=hurry, daemon=True).start()

    before = {number: signal.signal(number, ask) for number in ends()}
    try:
        yield workers
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _forget(host: Host) -> None:
    with contextlib.suppress(Exception):  # the server may be what has just ended
        pools.forget(host.pool, host.name)
    with contextlib.suppress(UserError):
        roster.remove(ledger.open(host.settings).store, _entry(host))


def _entry(host: Host) -> roster.Entry:
    here = environment.describe(host.settings.root)
    return roster.Entry(
        host.name, host.pool, socket.gethostname(), str(host.devices), machine=here.machine, lock=here.lock
    )


def _children() -> list[int]:
    """The processes that this one has started and that live."""
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += map(int, path.read_text().split())
    return found


def _words(error: BaseException) -> str:
    """An error in one line."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answers {error.response.status_code}"
    return f"{type(error).__name__}: {error}".splitlines()[0][:200].rstrip(": ")
