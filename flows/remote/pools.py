"""Prefect's work pools: where stages and orchestrating flows wait for a worker, and who serves them.

    pools.ensure()                        once, by whoever comes first: pools cpu, gpu, flows; deployments stage/cpu ...
    pools.check("gpu")                    UserError at once if nobody would take a stage

The address of the server is Prefect's own variable PREFECT_API_URL, which `flows.retrain.launch` and the worker set.
Whether a worker lives is told by the server's clock alone: its heartbeat was written, and is compared, with that one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import Worker as Known
from prefect.client.schemas.objects import WorkerStatus
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from data.core.params import UserError, near
from flows.remote import roster
from flows.remote.roster import Entry
from flows.storage.protocol import Denied

if TYPE_CHECKING:
    from flows.storage.protocol import Bucket

STAGES = ("cpu", "gpu")  # pools of stages: a worker takes one at a time
FLOWS = "flows"  # the pool of orchestrating flows: they mostly wait, so any number at once
DESCRIPTIONS = {
    "cpu": "Stages that need no GPU.",
    "gpu": "Stages that train or run networks.",
    FLOWS: "Flows that order stages and wait for them.",
}
# Nothing that a flow run may set: command, variables and folder of a flow are its worker's. Prefect's own template
# of pools of processes would let everybody with the server's login run any command with the worker's keys.
JOB_TEMPLATE: dict[str, Any] = {
    "job_configuration": {"stream_output": True},  # Prefect wants something in it
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
FLOW = "stage"
ENTRYPOINT = "flows.remote.stage.stage"
T = TypeVar("T")


@dataclass(frozen=True)
class Worker:
    """One worker of a pool: what it says of itself, and whether it lives."""

    entry: Entry
    online: bool

    @property
    def idle(self) -> bool:
        return self.online and not self.entry.stage


def _explained(function: Callable[..., T]) -> Callable[..., T]:
    """What Prefect's client raises as one line that names the variable."""

    @functools.wraps(function)
    def explained(*arguments: Any, **named: Any) -> T:
        try:
            return function(*arguments, **named)
        except httpx.HTTPStatusError as error:
            code = error.response.status_code
            if code in (401, 403):
                words = f"REMINT_PREFECT_API: the Prefect server answers {code}; set PREFECT_API_AUTH_STRING"
                raise Denied(words) from None
            raise UserError(
                f"REMINT_PREFECT_API: the Prefect server answers {code}; look at the server's log"
            ) from None
        except httpx.HTTPError as error:
            raise UserError(
                f"REMINT_PREFECT_API: the Prefect server does not answer ({type(error).__name__}); start it, or "
                "correct the variable"
            ) from None

    return explained


@_explained
def ensure() -> None:
    """Make the pools and deployments that are missing; those that are there stay as they are."""
    with get_client(sync_client=True) as client:
        for name in (*STAGES, FLOWS):
            try:
                client.read_work_pool(name)
            except ObjectNotFound:
                wanted = WorkPoolCreate(
                    name=name, type="process", base_job_template=JOB_TEMPLATE, description=DESCRIPTIONS[name]
                )
                with contextlib.suppress(ObjectAlreadyExists):  # by another worker at the same moment
                    client.create_work_pool(wanted)
        for name in STAGES:
            try:
                client.read_deployment_by_name(f"{FLOW}/{name}")
            except ObjectNotFound:  # creating is an upsert: two that do it at once make one
                client.create_deployment(
                    flow_id=client.create_flow_from_name(FLOW),
                    name=name,
                    work_pool_name=name,
                    entrypoint=ENTRYPOINT,
                    description=DESCRIPTIONS[name],
                    parameter_openapi_schema={
                        "type": "object",
                        "properties": {"place": {"type": "string"}},
                        "required": ["place"],
                    },
                )


@_explained
def known() -> list[str]:
    """The names of all work pools of the server."""
    with get_client(sync_client=True) as client:
        return sorted(pool.name for pool in client.read_work_pools())


@_explained
def workers(pool: str, store: Bucket | None = None) -> tuple[Worker, ...]:
    """Every worker that has ever served the pool and was not removed; () for a pool that is not there.

    store: the ledger's bucket, which knows what a living worker carries and whether it is idle.
    """
    with get_client(sync_client=True) as client:
        try:
            every = client.read_workers_for_work_pool(pool)
        except ObjectNotFound:
            return ()
        except httpx.HTTPStatusError as error:
            if error.response.status_code == 404:
                return ()
            raise
    found = []
    for one in every:
        online = _lives(one)
        bare = Entry(one.name, pool)
        found.append(Worker(roster.get(store, pool, one.name) if online and store else bare, online))
    return tuple(found)


@_explained
def heartbeat(pool: str, name: str) -> str | None:
    """When a worker that counts as living gave its last sign of life, in the server's words; None if it has gone."""
    with get_client(sync_client=True) as client:
        every = client.read_workers_for_work_pool(pool)
    return next((str(one.last_heartbeat_time) for one in every if one.name == name and _lives(one)), None)


def check(pool: str) -> None:
    """UserError if there is no such pool, or nobody serves it now."""
    names = known()
    if pool not in names:
        raise UserError(f"there is no work pool '{pool}'{near(pool, names)}; `remint worker --pool` makes cpu and gpu")
    every = workers(pool)
    if not any(worker.online for worker in every):
        gone = ", ".join(sorted(worker.entry.name for worker in every))
        raise UserError(
            f"no worker serves pool '{pool}' now{f' (gone: {gone})' if gone else ''}; start one: "
            f"remint worker --pool {pool}"
        )


@_explained
def forget(pool: str, name: str) -> None:
    """Take a worker that leaves from the server's list, so that nobody waits for it."""
    with get_client(sync_client=True) as client:
        client.request("DELETE", f"/work_pools/{quote(pool, safe='')}/workers/{quote(name, safe='')}")  # type: ignore[arg-type]


def _lives(worker: Known) -> bool:
    """Whether the worker has missed fewer than three heartbeats by the server's clock: the server compares them."""
    return worker.status == WorkerStatus.ONLINE
