"""The deployed flows: when each starts next, and started last; pausing, resuming, and starting one now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from data.core.params import UserError, near
from flows.schedules import deploy
from flows.workers import pools
from flows.workers.flowruns import FLOW

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse


@dataclass(frozen=True)
class Scheduled:
    """A deployed flow as the server knows it."""

    name: str
    id: str  # of the deployment
    schedule: str
    pool: str
    paused: bool
    next: datetime | None
    last: datetime | None
    last_state: str  # "Completed", "Failed", ...; "" if it never started

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def every(client: SyncPrefectClient) -> list[Scheduled]:
    """All of them, by name."""
    return [_seen(client, one) for title, one in deploy.known(client).items() if not title.startswith(f"{FLOW}/")]


def pause(client: SyncPrefectClient, name: str) -> Scheduled:
    """Start it by schedule no more; one that is running runs on."""
    found = _named(client, name)
    client.pause_deployment(found.id)
    return _seen(client, _named(client, name))


def resume(client: SyncPrefectClient, name: str) -> Scheduled:
    found = _named(client, name)
    client.resume_deployment(found.id)
    return _seen(client, _named(client, name))


def run_now(client: SyncPrefectClient, name: str) -> tuple[str, str]:
    """Start it now, also while it is paused; returns the flow run's name and id. UserError if nobody could run it."""
    found = _named(client, name)
    pools.check(str(found.work_pool_name))
    run = client.create_flow_run_from_deployment(found.id)
    return run.name, str(run.id)


def _named(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    known: Mapping[str, DeploymentResponse] = {one.name: one for one in deploy.known(client).values()}
    if name not in known:
        rest = near(name, known) or "; nothing is deployed yet: remint deploy"
        raise UserError(f"no schedule {name!r}{rest}")
    return known[name]


def _seen(client: SyncPrefectClient, one: DeploymentResponse) -> Scheduled:
    last = _last(client, one)
    return Scheduled(
        name=one.name,
        id=str(one.id),
        schedule="; ".join(deploy.schedule_words(one)),
        pool=str(one.work_pool_name),
        paused=bool(one.paused),
        next=None if one.paused else _next(one),
        last=last.start_time if last else None,
        last_state=str(last.state_name or "") if last else "",
    )


def _next(one: DeploymentResponse) -> datetime | None:
    """The next time by its schedules, also before the server has planned it."""
    from prefect.server.schemas.schedules import CronSchedule

    crons: list[Any] = [each.schedule for each in one.schedules if each.active and hasattr(each.schedule, "cron")]
    made = [CronSchedule(cron=each.cron, timezone=each.timezone) for each in crons]
    dates = [date for each in made for date in asyncio.run(each.get_dates(1, start=datetime.now(UTC)))]
    return min(dates, default=None)


def _last(client: SyncPrefectClient, one: DeploymentResponse) -> FlowRun | None:
    """The run of a deployment that started last."""
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import FlowRunSort

    started = {"deployment_id": {"any_": [one.id]}, "start_time": {"before_": datetime.now(UTC) + timedelta(days=1)}}
    wanted = FlowRunFilter.model_validate(started)
    found = client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.START_TIME_DESC, limit=1)
    return found[0] if found else None
