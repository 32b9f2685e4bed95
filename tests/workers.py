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

from flows.remote.ledger import Attempt, Ledger, Outcome, Work

STARTED_SECONDS = 90.0  # on a busy machine
KNOWN = ("REMINT_", "PREFECT_")


class PrefectServer:
    """A Prefect server on a port of its own, which can be ended and started again with what it knew."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        from flows.server import connect

        self.folder.mkdir(parents=True, exist_ok=True)
        home = {
            "PREFECT_HOME": str(self.folder),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{self.folder / 'prefect.db'}",
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
    """A Prefect server for as long as the context lasts; it takes 5 s to start."""
    running = PrefectServer(folder)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@dataclass
class Worker:
    """One `remint worker` process."""

    name: str
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
        with contextlib.suppress(ProcessLookupError):
            children = _descendants(self.process.pid)
            for pid in [self.process.pid, *children]:
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
    def ledger(self) -> Ledger:
        from flows.storage import bucket

        return Ledger(bucket.at(self.environment["REMINT_LEDGER"], "REMINT_LEDGER"))

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
        worker = Worker(name, clone, process, log)
        self.workers.append(worker)
        if wait:
            worker.says(f"serves pool {pool} with")
        return worker

    def ask(self, work: Work) -> Attempt:
        """Open an attempt and ask Prefect for a worker, as an orchestrator does."""
        attempt = self.ledger.open(work)
        assert attempt is not None
        with self.client() as client:
            deployment = client.read_deployment_by_name(f"stage/{work.pool}")
            body = {"parameters": {"place": attempt.place}, "name": attempt.token}
            client.request("POST", "/deployments/{id}/create_flow_run", None, {"id": deployment.id}, json=body)
        return attempt

    def outcome(self, attempt: Attempt, seconds: float = 90.0) -> Outcome:
        """What came of an attempt, as soon as it is closed."""
        return self.wait(lambda: self.ledger.outcome(attempt), f"outcome of {attempt.place}", seconds)

    def beat(self, attempt: Attempt, text: str = "", seconds: float = 60.0) -> Any:
        """The first beat that says this."""

        def found() -> Any:
            beat = self.ledger.last_beat(attempt)
            return beat if beat is not None and text in beat.text else None

        return self.wait(found, f"beat '{text}' of {attempt.place}", seconds)

    def wait(self, look: Any, what: str, seconds: float) -> Any:
        until = time.monotonic() + seconds
        while (found := look()) is None:
            logs = "\n".join(worker.words() for worker in self.workers)
            assert time.monotonic() < until, f"no {what}; workers said: {logs}"
            time.sleep(0.05)
        return found

    def shown(self, attempt: Attempt, state: str, seconds: float = 60.0) -> None:
        """Wait until Prefect shows an attempt's flow run in this state."""

        def look() -> str | None:
            with self.client() as client:
                found = [run.state.name for run in client.read_flow_runs() if run.name == attempt.token and run.state]
            return state if found == [state] else None

        self.wait(look, f"state {state} of {attempt.place}", seconds)

    def client(self) -> Any:
        from prefect.client.orchestration import SyncPrefectClient

        return SyncPrefectClient(self.api)


@contextlib.contextmanager
def farm(folder: Path, source: Path, api: str, remote: str = "", **variables: str) -> Iterator[Farm]:
    """Machines around a bare copy of the repository `source`, which has it as its origin from now on.

    remote: a folder or s3://bucket/prefix for DVC's remote, ledger and checkpoints; default: folders here.
    """
    origin = folder / "origin.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(source), str(origin)], check=True)
    subprocess.run(["git", "-C", str(source), "remote", "add", "origin", str(origin)], check=True)
    shared = remote or str(folder / "shared")
    environment = {
        "REMINT_STAGES": "workers",
        "REMINT_PREFECT_API": api,
        "REMINT_REMOTE": f"{shared}/dvc",
        "REMINT_LEDGER": f"{shared}/ledger",
        "REMINT_CHECKPOINTS": f"{shared}/checkpoints",
        "REMINT_MLFLOW_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "REMINT_VANISHED": "6",
        "REMINT_ALLOWED": "main,master,remint/*,run/*",
        **variables,
    }
    made = Farm(folder, origin, api, environment)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.kill()
        _clear(made)


def work(repository: Path, stage: str, **changes: Any) -> Work:
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
    asked = Work(stage, key or "0" * 64, head.stdout.strip(), inputs, "20261121T100000Z-1a2b3c4", found.meta.pool)
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


def _descendants(pid: int) -> list[int]:
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
