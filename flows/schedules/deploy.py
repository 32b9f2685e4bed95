"""Bring the Prefect server to what `infra/prefect.yaml` declares, changing only what differs.

    for one in deploy.apply(client, declared, path): ...

Whatever a person did on the server stays: a paused schedule stays paused, a pool's limit stays, and a deployment that
the file no longer names is reported, and removed only on request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.schedules.declared import Cron, Declared, Deployment, load_flow
from flows.workers.flowruns import BEAT
from flows.workers.pools import AUTOMATION, JOB_TEMPLATE, PROCESS

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

SILENT_SECONDS = 90  # three heartbeats that were missed
MADE = "remint"  # the tag of what `remint deploy` puts on the server

Done = Literal["created", "updated", "unchanged", "not declared", "removed"]


@dataclass(frozen=True)
class Change:
    """What became of one entry."""

    kind: str  # "work pool", "automation", "deployment"
    name: str
    done: Done
    what: str  # "*/5 * * * * in flows", or what was changed

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "name": self.name, "done": self.done, "what": self.what}


def apply(client: SyncPrefectClient, declared: Declared, path: Path, *, prune: bool = False) -> Iterator[Change]:
    """Create and update what is declared; each entry is told of when it is done.

    Every flow is loaded and checked before the first thing is changed. `prune` removes deployments that an earlier
    `apply` made and the file no longer names.
    """
    flows = {one.name: load_flow(one, path) for one in declared.deployments}
    for name, pool in declared.work_pools.items():
        yield _pool(client, name, pool.description)
    yield _automation(client)
    for one in declared.deployments:
        yield _deployment(client, one, flows[one.name])
    named = {(flows[one.name].name, one.name) for one in declared.deployments}
    for title, found in known(client).items():
        flow, _, name = title.partition("/")
        if (flow, name) in named:
            continue
        if prune:
            client.delete_deployment(found.id)
        yield Change("deployment", name, "removed" if prune else "not declared", _shown(found))


def known(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """What `apply` has put on the server, by "flow/name"."""
    from prefect.client.schemas.filters import DeploymentFilter

    wanted = DeploymentFilter.model_validate({"tags": {"all_": [MADE]}})
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(deployment_filter=wanted, offset=len(found)):
        found += page
    flows = {one.flow_id: client.read_flow(one.flow_id).name for one in found}
    return {f"{flows[one.flow_id]}/{one.name}": one for one in sorted(found, key=lambda one: one.name)}


def _pool(client: SyncPrefectClient, name: str, description: str) -> Change:
    """Make a pool of processes, or correct what is ours of it; its limit and a pause are the operators' business."""
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    wanted: dict[str, Any] = {"description": description, "base_job_template": JOB_TEMPLATE}
    try:
        there = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=PROCESS, **wanted))
        return Change("work pool", name, "created", description)
    if there.type != PROCESS:  # one of Kubernetes, say, whose template is infra/k8s/gpu-job-template.json
        del wanted["base_job_template"]
    differing = {key: value for key, value in wanted.items() if (getattr(there, key) or "") != value}
    if not differing:
        return Change("work pool", name, "unchanged", description)
    client.update_work_pool(name, WorkPoolUpdate(**differing))
    return Change("work pool", name, "updated", ", ".join(differing).replace("_", " "))


def _automation(client: SyncPrefectClient) -> Change:
    """Take a flow run for crashed that has given a heartbeat, and then neither another one nor an end."""
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    if there := client.read_automations_by_name(AUTOMATION):
        paused = "" if any(found.enabled for found in there) else " (paused: runs on workers need it)"
        return Change("automation", AUTOMATION, "unchanged", f"after {SILENT_SECONDS} s without a heartbeat{paused}")
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
    trigger = EventTrigger(
        after={BEAT},
        expect={BEAT} | ends,
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENT_SECONDS),
    )
    crash = ChangeFlowRunState(name=None, state=StateType.CRASHED, message="It gave no heartbeat.", force=False)
    client.create_automation(AutomationCore(name=AUTOMATION, trigger=trigger, actions=[crash]))
    return Change("automation", AUTOMATION, "created", f"after {SILENT_SECONDS} s without a heartbeat")


def _deployment(client: SyncPrefectClient, one: Deployment, flow: Flow[..., Any]) -> Change:
    from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
    from prefect.exceptions import ObjectNotFound

    wanted: dict[str, Any] = {
        "description": one.description,
        "entrypoint": one.entrypoint,
        "work_pool_name": one.work_pool,
        "parameters": one.parameters,
        "job_variables": {},
        "pull_steps": None,
        "parameter_openapi_schema": flow.parameters.model_dump_for_openapi(),
        "tags": [MADE],
    }
    schedules = [{"schedule": _cron(cron), "active": True} for cron in one.schedules]
    try:
        there = client.read_deployment_by_name(f"{flow.name}/{one.name}")
    except ObjectNotFound:
        flow_id = client.create_flow_from_name(flow.name)
        made = [DeploymentScheduleCreate(**each) for each in schedules]
        client.create_deployment(flow_id, one.name, schedules=made, enforce_parameter_schema=True, **wanted)
        return Change("deployment", one.name, "created", f"{_crons(one.schedules)} in {one.work_pool}")
    differing: dict[str, Any] = {
        key: value for key, value in wanted.items() if (getattr(there, key) or None) != (value or None)
    }
    if schedule_words(there) != [str(cron) for cron in one.schedules]:
        differing["schedules"] = schedules
    if not differing:
        return Change("deployment", one.name, "unchanged", _shown(there))
    client.update_deployment(there.id, DeploymentUpdate(**differing))
    return Change("deployment", one.name, "updated", ", ".join(_changed(differing, there, one)))


def schedule_words(there: DeploymentResponse) -> list[str]:
    """When a deployment on the server starts, as the file would say it."""
    return [_words(one.schedule) for one in there.schedules]


def _words(schedule: Any) -> str:
    if hasattr(schedule, "cron"):
        return str(Cron(schedule.cron, schedule.timezone or "UTC"))
    return f"every {schedule.interval}" if hasattr(schedule, "interval") else str(schedule.rrule)


def _cron(cron: Cron) -> Any:
    from prefect.client.schemas.schedules import CronSchedule

    return CronSchedule(cron=cron.cron, timezone=cron.timezone)


def _crons(schedules: Iterable[Cron]) -> str:
    return "; ".join(map(str, schedules)) or "on request"


def _shown(there: DeploymentResponse) -> str:
    paused = " (paused)" if there.paused else ""
    return f"{'; '.join(schedule_words(there)) or 'on request'} in {there.work_pool_name}{paused}"


def _changed(differing: Mapping[str, Any], there: DeploymentResponse, one: Deployment) -> Iterator[str]:
    """What was changed, in words: the schedule and parameters with both values."""
    for key in differing:
        if key == "schedules":
            yield f"schedule {'; '.join(schedule_words(there)) or 'none'} -> {_crons(one.schedules)}"
        elif key == "parameters":
            yield f"parameters {there.parameters} -> {one.parameters}"
        elif key != "parameter_openapi_schema":
            yield key.removesuffix("_name").replace("_", " ")
    if list(differing) == ["parameter_openapi_schema"]:
        yield "the flow's own parameters"
