"""What `remint worker` does: everything that a worker needs is looked at, and then `prefect worker start` is started.

What that is given are its variables: the clone, the pool, the devices, and in a pool of stages the one flow that it may
run. Nothing of ours runs in it. We stay in front of it for its end alone: asked to end, Prefect's worker kills its flow
runs at once; here they are asked first, and get time for a checkpoint.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from data.core.params import UserError, near
from flows import repository, settings
from flows.console import ends, say
from flows.pipeline import accepted, workspace
from flows.server import connect
from flows.settings import Settings
from flows.stage import confined
from flows.storage.protocol import PART
from flows.storage.retry import retry
from flows.workers import flowruns, orders, pools
from models.tracking import server as mlflow_server

POOLS = ("cpu", "gpu", pools.FLOWS)
ENTRYPOINT = "flows.workers.stage.stage"
LAST_BEAT_SECONDS = 7.0  # a living worker gives a heartbeat within it
ANSWER_SECONDS = 5.0  # servers that start beside the worker, or are busy
ASK_SECONDS = 60  # importing torch takes 2 s, on a busy machine many times that
LEAVE_SECONDS, END_SECONDS = 20.0, 5.0  # for flow runs that are asked to end, and then for the worker itself
VISIBLE = "CUDA_VISIBLE_DEVICES"
WORKER = {  # how Prefect's worker is to behave, unless somebody has set it otherwise
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # seconds; Prefect allows no shorter ones
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",  # three missed ones, and nobody waits for it
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
}


def serve(place: Path, pool: str, name: str | None, devices: str) -> int:
    """Serve a pool in the clone around `place` until the end; UserError names what the machine lacks."""
    chosen = _settings(place)
    if pool not in POOLS:
        raise UserError(f"--pool {pool}: there is no such pool{near(pool, POOLS)}")
    own = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()).strip("-") or "worker"
    called = name or f"{own}-{pool}-{os.getpid()}"
    if not PART.fullmatch(called):
        raise UserError(
            f"'{called}' is not a name for a worker: 1 to 128 letters, digits and _.@+=-, the first a letter or digit"
        )
    gpus = visible(devices, pool)
    check(chosen, pool)
    _clean(chosen)
    here = WORKER | {name: os.environ[name] for name in WORKER if name in os.environ}
    os.environ |= settings.child_environment(chosen) | here | {"REMINT_CLONE": str(chosen.root), "REMINT_POOL": pool}
    if pool != pools.FLOWS:
        os.environ |= {VISIBLE: gpus, "PREFECT__FLOW_ENTRYPOINT": ENTRYPOINT}
    connect.use(str(chosen.prefect_api))
    _alone(pool, called)
    if not confined.possible():
        say(f"worker {called}: no Landlock here, so a stage could read what other processes of this user hold")
    say(f"worker {called} serves pool {pool} with {'the processor' if gpus in ('', '-1') else f'GPUs {gpus}'}")
    limit = "" if pool == pools.FLOWS else "--limit 1"
    start = f"-m prefect worker start --type {pools.PROCESS} --no-create-pool-if-not-found {limit}"
    return _in_front(called, [sys.executable, *start.split(), "--pool", pool, "--name", called])


def _in_front(name: str, command: list[str]) -> int:
    """Run the worker to its end; asked to end, ask its flow runs first, while it takes no other. Its exit code."""
    leave = threading.Event()
    for number in ends():
        signal.signal(number, lambda number, frame: leave.set())
    worker = subprocess.Popen(command, start_new_session=True)  # what a terminal says reaches us alone
    while worker.poll() is None and not leave.wait(0.2):
        pass
    if worker.poll() is not None:
        return worker.returncode
    say(f"worker {name}: was asked to end; giving back what it works on")
    worker.send_signal(signal.SIGSTOP)
    runs, until = psutil.Process(worker.pid).children(), time.monotonic() + LEAVE_SECONDS
    for run in runs:
        run.terminate()
    while any(run.is_running() and run.status() != psutil.STATUS_ZOMBIE for run in runs) and time.monotonic() < until:
        time.sleep(0.1)
    worker.terminate()
    worker.send_signal(signal.SIGCONT)
    try:
        worker.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
    return 0


def visible(names: str, pool: str, found: tuple[str, ...] | None = None) -> str:
    """The value of CUDA_VISIBLE_DEVICES for `--devices NAMES`: "cpu", "0,1", or "" for every GPU if it is the pool gpu.

    UserError where a GPU is wanted and there is none. `found` stands for what `gpus` would say.
    """
    if names == "cpu" or (not names and pool != "gpu"):
        return "-1"  # and not "": an empty value means every device to some libraries
    there = gpus() if found is None else found
    if not there:
        raise UserError(
            f"no GPU for pool {pool} on this machine: its torch sees none (nvidia-smi shows the driver; "
            "torch's CPU build sees none ever); `--devices cpu` serves the pool with the processor"
        )
    wanted = tuple(dict.fromkeys(re.split(r"[,\s]+", names.strip(", ")))) if names else there
    for name in wanted:
        if name not in there:
            raise UserError(f"--devices {names}: there is no GPU '{name}' on this machine; GPUs: {', '.join(there)}")
    return ",".join(wanted)


def gpus() -> tuple[str, ...]:
    """The GPUs that torch can use, by their numbers on this machine; () without one, or without a driver."""
    code = "import torch; print(torch.cuda.device_count())"
    outside = {"capture_output": True, "text": True, "cwd": tempfile.gettempdir()}
    try:
        done = subprocess.run([sys.executable, "-c", code], timeout=ASK_SECONDS, check=False, **outside)  # type: ignore
        count = int(done.stdout.split()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return ()
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return tuple(named[:count] if named else map(str, range(count)))


def check(chosen: Settings, pool: str) -> None:
    """UserError that names the variable of whatever does not answer."""
    if not chosen.prefect_api:
        raise UserError("REMINT_PREFECT_API is not set: name the Prefect server that a worker gets its work from")
    retry(connect.check, chosen.prefect_api, seconds=ANSWER_SECONDS)
    retry(mlflow_server.check, chosen.mlflow_uri, seconds=ANSWER_SECONDS)
    orders.opened(chosen).store.list("runs/")
    accepted.exchanged(chosen).list("runs/00/")
    if pool == pools.FLOWS:
        from flows.catalogue import database  # not before: SQLAlchemy takes half a second to load

        database.open(chosen).close()


def _settings(place: Path) -> Settings:
    """The settings of the clone around `place`; UserError where it has no origin."""
    checkout = repository.find(place)
    if repository.ORIGIN not in repository.git(checkout.main, "remote").split():
        raise UserError(
            f"{checkout.main} has no remote '{repository.ORIGIN}', and a worker fetches the runs' commits from there; "
            f"work in a clone, or: git remote add {repository.ORIGIN} ADDRESS"
        )
    return settings.load(checkout.main)


def _clean(chosen: Settings) -> None:
    """Free what killed workers left in the clone."""
    chosen.home.mkdir(parents=True, exist_ok=True)
    with workspace.exclusive(chosen):
        for left in workspace.dead(chosen):
            workspace.remove_dead(chosen, left)


def _alone(pool: str, name: str) -> None:
    """UserError if the pool is not there, or a living worker has this name; one that was killed just now has not."""
    from prefect.exceptions import ObjectNotFound  # not before: Prefect reads the environment when it is imported

    last, until = None, time.monotonic() + LAST_BEAT_SECONDS
    while True:
        try:
            with flowruns.client() as api:
                every = api.read_workers_for_work_pool(pool)
        except ObjectNotFound:
            raise UserError(f"the Prefect server has no work pool '{pool}'; make it: remint deploy") from None
        beat = next((one.last_heartbeat_time for one in every if one.name == name and pools.lives(one)), None)
        if beat is None or time.monotonic() > until:
            return
        if last not in (None, beat):
            raise UserError(f"--name {name}: a worker of this name serves pool {pool} now; choose another")
        last = beat
        time.sleep(0.5)
