"""How a machine joins: everything that a worker needs is looked at before it takes its first stage."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

from data.core.params import UserError, near
from flows import repository, settings
from flows.pipeline import workspace
from flows.remote import exchange, ledger, objects, origin, roster
from flows.remote.device import Devices
from flows.remote.execute import Host
from flows.remote.patience import patiently
from flows.server import connect
from flows.settings import Settings
from models.tracking import server as mlflow_server

POOLS = ("cpu", "gpu", "flows")
# Prefect's client would wait a minute for an answer, and another one between its tries: the worker's loop tries again
IMPATIENT = {"PREFECT_API_REQUEST_TIMEOUT": "15", "PREFECT_CLIENT_MAX_RETRIES": "1"}
ANSWER_SECONDS = 5.0  # servers that start beside the worker, or are busy
BUSY_SECONDS = 30.0  # Prefect on SQLite answers 503 while others write
LAST_BEAT_SECONDS = 5.0  # a living worker beats within it
NOTHING = "d41d8cd98f00b204e9800998ecf8427e"  # MD5 of an empty file: any object would do


def settings_here(start: Path) -> Settings:
    """The settings of the clone around `start`; UserError where it has no origin."""
    checkout = repository.find(start)
    if origin.NAME not in repository.git(checkout.main, "remote").split():
        raise UserError(
            f"{checkout.main} has no remote '{origin.NAME}', and a worker fetches the runs' commits from there; "
            f"work in a clone, or: git remote add {origin.NAME} ADDRESS"
        )
    return settings.load(checkout.main)


def host(chosen: Settings, pool: str, name: str | None, devices: Callable[[], Devices]) -> Host:
    """Who serves the pool; UserError for a pool that is none, a name that cannot be one, a GPU that is not there."""
    if pool not in POOLS:
        raise UserError(f"--pool {pool}: there is no such pool{near(pool, POOLS)}")
    own = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()).strip("-") or "worker"
    return Host(chosen, roster.check_name(name or f"{own}-{pool}-{os.getpid()}"), pool, devices())


def check(host: Host) -> None:
    """UserError that names the variable of whatever does not answer."""
    chosen = host.settings
    if not chosen.prefect_api:
        raise UserError("REMINT_PREFECT_API is not set: a worker gets its work from a Prefect server")
    patiently(connect.check, chosen.prefect_api, seconds=ANSWER_SECONDS)
    patiently(mlflow_server.check, chosen.mlflow_uri, seconds=ANSWER_SECONDS)
    ledger.open(chosen).store.list(f"{roster.WORKERS}/")
    objects.open(chosen).size(NOTHING)
    if host.pool == "flows":
        from flows.catalogue import database

        database.open(chosen)


def prepare(host: Host) -> None:
    """Let this process's tools work for the clone, and free what killed workers left in it."""
    chosen = host.settings
    chosen.home.mkdir(parents=True, exist_ok=True)
    os.environ.update(settings.child_environment(chosen))
    os.environ["PREFECT_API_URL"] = chosen.prefect_api or ""
    os.environ.update(IMPATIENT)
    with workspace.exclusive(chosen):
        for left in workspace.dead(chosen):
            workspace.remove_dead(chosen, left)
    exchange.open(chosen, workspace.cache(chosen)).clean()


def announce(host: Host) -> None:
    """Have the pools on the server; UserError if a living worker has this name."""
    from flows.remote import pools

    patiently(pools.ensure, seconds=BUSY_SECONDS)
    last = pools.heartbeat(host.pool, host.name)
    until = time.monotonic() + LAST_BEAT_SECONDS
    while last is not None and time.monotonic() < until:  # it lives, or was killed just now and its place is free
        time.sleep(0.5)
        if pools.heartbeat(host.pool, host.name) != last:
            raise UserError(f"--name {host.name}: a worker of this name serves pool {host.pool} now; choose another")
