"""Work pools of the Prefect server, which `remint deploy` makes: whether somebody there would take a stage.

A pool may be of any type whose jobs run a command in a clone: of processes (`remint worker`), of Kubernetes
(infra/k8s/gpu-job-template.json), of Docker (infra/docker/job-template.json). Whether a worker lives is told by the
server's clock alone: its heartbeat was written, and is compared, with that one.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.core.params import UserError, near
from flows.pipeline.job import Job
from flows.server import connect
from flows.workers import flowruns

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import Worker, WorkPool

FLOWS = "flows"  # the pool of orchestrating flows: they mostly wait, so any number at once
PROCESS = "process"
COMMAND = "python -m prefect.engine"
# Nothing that a flow run may set: command, variables and folder of a flow are its worker's. Prefect's own template
# of pools of processes would let everybody with the server's login run any command with the worker's keys.
JOB_TEMPLATE: dict[str, Any] = {
    "job_configuration": {"command": COMMAND, "stream_output": False},  # a flow outlives its killed worker's pipes
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}
CLONER = "infra/docker/worker.sh"  # brings a clone up to date in a job of its own, which has none
NO_STAGES = ("prefect-agent", "prefect:managed")  # types whose jobs can have neither an image of ours nor a clone
AUTOMATION = "Crash zombie flows"
LOOSE = {"command", "env", "image", "working_dir"}  # variables of a template by which a flow run chooses what runs


def check_for(job: Job) -> None:
    """UserError if the stages of a job that are to run cannot run on workers now."""
    todo = [stage for stage in job.stages if job.plan.action(stage.name) != "current"]
    if not todo:
        return
    api = job.settings.prefect_api
    if not api:
        raise UserError(
            "REMINT_STAGES=workers needs REMINT_PREFECT_API: set it to the Prefect server that the workers ask"
        )
    connect.check(api)
    for stage in todo:
        if not stage.deps or not stage.outs:
            raise UserError(
                f"dvc.yaml: stage '{stage.name}' has no deps or no outs, so its result cannot be shared; name them"
            )
    connect.use(api)
    for pool in sorted({stage.meta.pool for stage in todo}):
        check(pool)


def check(pool: str) -> None:
    """UserError if nobody would take a flow run of this pool, or nobody would notice that its worker has died."""
    with flowruns.client() as api:
        there = _pool(api, pool)
        if there is None:
            names = sorted(one.name for one in api.read_work_pools())
            raise UserError(
                f"there is no work pool '{pool}'{near(pool, names)}; remint deploy makes cpu, gpu and flows"
            )
        if why := unfit(there.type, there.base_job_template):
            raise UserError(f"work pool '{pool}' cannot run stages: {why}")
        if not any(found.enabled for found in api.read_automations_by_name(AUTOMATION)):
            raise UserError(
                f"the Prefect server has no automation '{AUTOMATION}' that is on, without which nobody notices a dead "
                "worker; remint deploy"
            )
        every = api.read_workers_for_work_pool(pool)
    if not any(map(lives, every)):
        gone = ", ".join(sorted(worker.name for worker in every))
        raise UserError(
            f"no worker serves pool '{pool}' now{f' (gone: {gone})' if gone else ''}; start one: "
            f"remint worker --pool {pool}"
        )


def unfit(kind: str, template: dict[str, Any]) -> str:
    """Why jobs of a pool of this type with this base job template cannot run stages, and what to do; "" if they can."""
    if kind in NO_STAGES:
        return f"it is of type '{kind}'; make one of type process, docker or kubernetes"
    configured, variables = template.get("job_configuration", {}), template.get("variables", {}).get("properties", {})
    if loose := ", ".join(sorted(LOOSE & set(variables))):
        step = "remint deploy" if kind == PROCESS else "take them out of the template"
        return f"its base job template lets a flow run choose {loose}; {step}"
    if kind == PROCESS:
        given = configured.get("command") or "nothing"
        return "" if given == COMMAND else f"its base job template runs {given}, not {COMMAND}; remint deploy"
    lacking = [wanted for wanted in (CLONER, "prefect.engine") if wanted not in json.dumps(configured)]
    if not lacking:
        return ""
    return (
        f"its base job template does not name {lacking[0]}, so that a job has no clone to work in; give it "
        "infra/k8s/gpu-job-template.json or infra/docker/job-template.json: prefect work-pool update "
        "--base-job-template FILE NAME"
    )


@dataclass(frozen=True)
class Served:
    """A work pool, and who serves it."""

    kind: str  # "process", "kubernetes", ...
    limit: int | None  # of flow runs at once
    workers: tuple[str, ...]  # names of those that live


def served(api: SyncPrefectClient, pool: str) -> Served:
    """Who serves a pool now; UserError, Away."""
    with flowruns.explained():
        there, every = _pool(api, pool), api.read_workers_for_work_pool(pool)
    workers = tuple(sorted(worker.name for worker in every if lives(worker)))
    return Served(there.type if there else "", there.concurrency_limit if there else None, workers)


def at_once(pool: str) -> int:
    """How many stages of the pool may work at once: its limit, else one for each worker; 0 where it is not known."""
    with contextlib.suppress(UserError), flowruns.client() as api:
        found = served(api, pool)
        return found.limit or len(found.workers)
    return 0


def _pool(api: SyncPrefectClient, name: str) -> WorkPool | None:
    from prefect.exceptions import ObjectNotFound

    try:
        return api.read_work_pool(name)
    except ObjectNotFound:
        return None


def lives(worker: Worker) -> bool:
    """Whether the worker has missed fewer than three heartbeats by the server's clock: the server compares them."""
    return worker.status is not None and worker.status.value == "ONLINE"
