"""Real workers for tests: a Prefect server, a bare origin, and `remint worker` processes with a clone each.

with workers.farm(folder, toy.root, api) as farm:
    farm.start("cpu"), farm.start("cpu")
    done = toy.remint("retrain", **farm.environment)
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flows.workers import pools
from flows.workers.orders import Attempt, Ended, Order, Orders
from tests import postgres

STARTED_SECONDS = 300.0  # on a busy machine
KNOWN = ("REMINT_", "PREFECT_")


class PrefectServer:
    """A Prefect server on a port of its own, which can be ended and started again with what it knew."""

    def __init__(self, folder: Path, database: str = "") -> None:
        self.folder, self.port = folder, free_port()
        self.database = database or f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        from flows.server import connect

        self.folder.mkdir(parents=True, exist_ok=True)
        home = {
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_DATABASE_CONNECTION_URL": self.database,
        }
        factory = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [*factory, "--port", str(self.port), "--log-level", "error", "--lifespan", "on"],
                env={**foreign(os.environ), **connect.LEAN, **home},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + STARTED_SECONDS
        while not connect.answers(self.api, seconds=1.0):
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"Prefect's server did not start: {(self.folder / 'server.log').read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def prefect(folder: Path) -> Iterator[PrefectServer]:
    """A Prefect server for as long as the context lasts; it takes 10 s to start.

    On PostgreSQL as the stack has it: on SQLite its services and its clients wait a minute for each other's locks.
    """
    with contextlib.ExitStack() as stack:
        address = ""
        if postgres.programs() is not None:
            at = stack.enter_context(postgres.server()).folder
            address = f"postgresql+asyncpg://postgres@/postgres?host={at}"
        running = PrefectServer(folder, address)
        stack.callback(running.stop)
        running.start()
        yield running


@dataclass
class Worker:
    """One `remint worker` process, which is Prefect's own worker once it has looked around."""

    name: str
    pool: str
    clone: Path
    process: subprocess.Popen
    log: Path

    def says(self, text: str, seconds: float = STARTED_SECONDS) -> None:
        """Wait until it has said this; AssertionError with everything it said if it does not."""
        until = time.monotonic() + seconds
        while text not in self.words():
            assert self.process.poll() is None, f"{self.name} ended: {self.words()}"
            assert time.monotonic() < until, f"{self.name} does not say '{text}': {self.words()}"
            time.sleep(0.05)

    def words(self) -> str:
        return self.log.read_text()

    def kill(self) -> None:
        """As a power cut does: the worker and everything it started."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def end(self, seconds: float = 60.0) -> float:
        """Ask it to end as the system does; how long it took."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(seconds)
        return time.monotonic() - began


@dataclass
class Farm:
    """Machines around one origin: their common places, and the workers that were started."""

    folder: Path
    origin: Path
    api: str
    environment: dict[str, str]  # for `remint` and its workers
    workers: list[Worker] = field(default_factory=list)

    @property
    def orders(self) -> Orders:
        from flows.storage import bucket

        return Orders(bucket.at(self.environment["REMINT_LEDGER"], "REMINT_LEDGER"))

    def clone(self, name: str) -> Path:
        """A machine's clone of the origin; made once."""
        path = self.folder / "machines" / name
        if not path.exists():
            subprocess.run(["git", "clone", "--quiet", str(self.origin), str(path)], check=True)
        return path

    def start(self, pool: str = "cpu", name: str = "", *options: str, wait: bool = True, **variables: str) -> Worker:
        """`remint worker --pool POOL` in a clone of its own; it serves the pool when this returns."""
        name = name or f"{pool}-{len(self.workers) + 1}"
        clone, log = self.clone(name), self.folder / f"{name}.log"
        command = [sys.executable, "-c", "from flows.cli import main; main()", "worker"]
        devices = ["--devices", "cpu"] if pool == "gpu" and not options else []
        with log.open("a") as sink:
            sink.truncate(0)
            process = subprocess.Popen(
                [*command, "--pool", pool, "--name", name, *devices, *options],
                cwd=clone,
                env={**foreign(os.environ), **self.environment, **variables},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        worker = Worker(name, pool, clone, process, log)
        self.workers.append(worker)
        if wait:
            worker.says("started!")
            self.wait(lambda: name in self.online(pool) or None, f"worker {name}", STARTED_SECONDS)
        return worker

    def online(self, pool: str) -> list[str]:
        with self.client() as client:
            return [one.name for one in client.read_workers_for_work_pool(pool) if pools.lives(one)]

    def ask(self, order: Order) -> Attempt:
        """Make an attempt and ask Prefect for a worker, as an orchestrator does."""
        made = [one for one in self.orders.attempts(order) if one.order.part == order.part]
        attempt = self.orders.open(order, len(made) + 1)
        with self.client() as client:
            deployment = client.read_deployment_by_name(f"stage/{order.pool}")
            body = {"parameters": {"order": attempt.place}, "name": attempt.token}
            client.request("POST", "/deployments/{id}/create_flow_run", None, {"id": deployment.id}, json=body)
        return attempt

    def ended(self, attempt: Attempt, seconds: float = 90.0) -> Ended:
        """What came of an attempt, as soon as somebody said so."""
        return self.wait(lambda: self.orders.ended(attempt), f"outcome of {attempt.place}", seconds)

    def hears(self, attempt: Attempt, text: str, seconds: float = 90.0) -> None:
        """Wait until the attempt's stage has said this, as Prefect's log has it."""
        self.wait(lambda: text in self.said(attempt) or None, f"'{text}' of {attempt.place}", seconds)

    def said(self, attempt: Attempt) -> str:
        from prefect.client.schemas.filters import LogFilter

        with self.client() as client:
            found = [run.id for run in client.read_flow_runs() if run.name == attempt.token]
            lines = client.read_logs(LogFilter.model_validate({"flow_run_id": {"any_": found}})) if found else []
        return "\n".join(line.message for line in lines)

    def wait(self, look: Any, what: str, seconds: float) -> Any:
        until = time.monotonic() + seconds
        while (found := look()) is None:
            logs = "\n".join(worker.words() for worker in self.workers)
            assert time.monotonic() < until, f"no {what}; workers said: {logs}"
            time.sleep(0.2)
        return found

    def state(self, attempt: Attempt) -> tuple[str, str]:
        """How Prefect shows an attempt's flow run, and why."""
        with self.client() as client:
            (state,) = [run.state for run in client.read_flow_runs() if run.name == attempt.token]
        return state.name, state.message or ""

    def shown(self, attempt: Attempt, state: str, seconds: float = 60.0) -> None:
        """Wait until Prefect shows an attempt's flow run in this state."""
        self.wait(lambda: self.state(attempt)[0] == state or None, f"state {state} of {attempt.place}", seconds)

    def client(self) -> Any:
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(self.api)


@contextlib.contextmanager
def farm(folder: Path, source: Path, api: str, remote: str = "", **variables: str) -> Iterator[Farm]:
    """Machines around a bare copy of the repository `source`, which has it as its origin from now on.

    remote: a folder or s3://bucket/prefix for DVC's remote, orders and checkpoints; default: folders here.
    """
    origin = folder / "origin.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(source), str(origin)], check=True)
    subprocess.run(["git", "-C", str(source), "remote", "add", "origin", str(origin)], check=True)
    shared = remote or str(folder / "shared")
    environment = {
        "REMINT_STAGES": "workers",
        "REMINT_PREFECT_API": api,
        "REMINT_REMOTE": f"{shared}/dvc",
        "REMINT_LEDGER": f"{shared}/orders",
        "REMINT_CHECKPOINTS": f"{shared}/checkpoints",
        "REMINT_MLFLOW_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "REMINT_VANISHED": "40",
        "REMINT_ALLOWED": "main,master,remint/*,run/*",
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "PREFECT_WORKER_HEARTBEAT_SECONDS": "2",
        **variables,
    }
    made = Farm(folder, origin, api, environment)
    deploy_to(api)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.kill()
        _clear(made)


def deploy_to(api: str) -> None:
    """What `remint deploy` puts onto a server; by a process: Prefect reads its settings when it is imported."""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", "from flows.cli import main; main()", "deploy"]
    subprocess.run(
        command, cwd=root, env={**foreign(os.environ), "REMINT_PREFECT_API": api}, check=True, capture_output=True
    )


def order(repository: Path, stage: str, **changes: Any) -> Order:
    """What an orchestrator asks for: a stage at HEAD whose inputs are what dvc.lock of this checkout records."""
    from dvc.repo import Repo
    from dvc.utils.serialize import load_yaml

    from flows.pipeline import graph
    from flows.pipeline.store import Store

    path = repository / "dvc.lock"
    lock = (load_yaml(str(path)) if path.exists() else {}).get("stages", {})
    with Repo(str(repository)) as repo:
        (found,) = [one for one in graph.read(repo) if one.name == stage]
    store = Store(repository)
    try:
        produced = {out["path"]: out["md5"] for entry in lock.values() for out in entry["outs"]}
        key = store.key(found, {dep: store.content(found, dep, produced) for dep in found.deps})
    finally:
        store.close()
    head = subprocess.run(["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True)
    inputs = {name: lock[name] for name in found.upstream}
    asked = Order(stage, key or "0" * 64, head.stdout.strip(), inputs, "20261121T100000Z-1a2b3c4", found.meta.pool)
    return replace(asked, **changes)


def foreign(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what belongs to another project's run."""
    return {key: value for key, value in environment.items() if not key.startswith(KNOWN)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clear(made: Farm) -> None:
    """Leave nothing behind on a server that other tests use: no waiting run, no worker."""
    import httpx
    from prefect.states import Cancelled

    with contextlib.suppress(httpx.HTTPError), made.client() as client:
        for run in client.read_flow_runs():
            if run.state is None or not run.state.is_final():
                client.set_flow_run_state(run.id, Cancelled(), force=True)
        for pool in client.read_work_pools():
            for worker in client.read_workers_for_work_pool(pool.name):
                client.request("DELETE", f"/work_pools/{pool.name}/workers/{worker.name}")


def descendants(pid: int) -> list[int]:
    """Every process below one, also those in sessions of their own."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(folder.name))
    found, queue = [], [pid]
    while queue:
        below = parents.get(queue.pop(), [])
        found += below
        queue += below
    return found
