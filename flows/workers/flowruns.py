"""Prefect flow runs that carry orders to workers: submitted, looked at, ended.

What came of an order is in the bucket. Prefect decides which worker takes it, shows it, and says whether somebody
still works on it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from data.core.params import UserError
from flows.storage.protocol import Denied
from flows.workers.orders import Attempt

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State

FLOW = "stage"
BEAT = "prefect.flow-run.heartbeat"
ANSWER_SECONDS = 15.0


class Away(UserError):
    """Prefect's server does not answer."""


@dataclass(frozen=True)
class Seen:
    """A flow run as the server has it."""

    state: str  # "SCHEDULED", "PENDING", "RUNNING", "COMPLETED", ...
    message: str = ""
    beat: datetime | None = None  # its last sign of life: a heartbeat, or words of the stage
    words: str = ""  # the last of them

    @property
    def over(self) -> bool:
        return self.state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@contextlib.contextmanager
def client() -> Iterator[SyncPrefectClient]:
    """A client of the server at PREFECT_API_URL that asks twice at most; what it refuses is one line.

    Prefect's own would try for a minute, during which no outcome would be seen.
    """
    import httpx  # not before: Prefect takes a second to load, and reads its settings when it is imported
    from prefect.client.orchestration import get_client
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    quick: dict[Any, Any] = {PREFECT_CLIENT_MAX_RETRIES: 1, PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS}
    try:
        chosen = temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"], **quick})
        with chosen, get_client(sync_client=True) as made:
            yield made
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            raise Denied(
                f"REMINT_PREFECT_API: the Prefect server answers {code}; set PREFECT_API_AUTH_STRING"
            ) from None
        kind = Away if code >= 500 else UserError
        raise kind(f"REMINT_PREFECT_API: the Prefect server answers {code}; look at the server's log") from None
    except httpx.HTTPError as error:
        raise Away(
            f"REMINT_PREFECT_API: the Prefect server does not answer ({type(error).__name__}); start it, or "
            "correct the variable"
        ) from None


def submit(attempt: Attempt) -> UUID:
    """Ask the pool for a worker; the same attempt twice, by whomever, is one flow run. UserError, Away."""
    from prefect.exceptions import ObjectNotFound

    order = attempt.order
    body = {
        "name": f"{order.stage} {order.run}" + (f" part {order.part}" if order.part else ""),
        "parameters": {"order": attempt.place},
        "idempotency_key": f"{attempt.place}/{attempt.token}",
    }
    with client() as server:
        try:
            deployment = server.read_deployment_by_name(f"{FLOW}/{order.pool}")
        except ObjectNotFound:
            raise UserError(f"Prefect has no deployment {FLOW}/{order.pool}; make it: remint deploy") from None
        # not the client's own method: it would schedule the run by this machine's clock instead of the server's
        answer = server.request("POST", "/deployments/{id}/create_flow_run", None, {"id": deployment.id}, json=body)
        return UUID(answer.json()["id"])


def look(flow_run: UUID) -> Seen:
    """Where a flow run stands; Away. One that the server does not know, its database was set back, has crashed."""
    from prefect.client.schemas.filters import LogFilter
    from prefect.client.schemas.sorting import LogSort
    from prefect.events.filters import EventFilter, EventNameFilter, EventOrder, EventResourceFilter
    from prefect.exceptions import ObjectNotFound

    with client() as server:
        try:
            state = server.read_flow_run(flow_run).state
        except ObjectNotFound:
            return Seen("CRASHED", "the Prefect server does not know its flow run")
        kind = state.type.value if state else "PENDING"
        if state is None or kind not in ("RUNNING", "CANCELLING"):
            return Seen(kind, (state.message or "") if state else "")
        said = server.read_logs(
            LogFilter.model_validate({"flow_run_id": {"any_": [flow_run]}}), limit=1, sort=LogSort.TIMESTAMP_DESC
        )
        beats = EventFilter(
            event=EventNameFilter(name=[BEAT]),
            resource=EventResourceFilter(id=[f"prefect.flow-run.{flow_run}"]),
            order=EventOrder.DESC,
        )
        seen = [event.occurred for event in server.read_events(beats, limit=1).events]
        times = [*seen, *(line.timestamp for line in said), *([state.timestamp] if state.timestamp else [])]
        return Seen(kind, state.message or "", max(times, default=None), said[0].message if said else "")


def end(flow_run: UUID, why: str, *, cancelled: bool) -> None:
    """End a flow run that nobody waits for: its worker stops it, and no other takes it; if the server answers."""
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Cancelling, Crashed

    with contextlib.suppress(Away, ObjectNotFound), client() as server:
        state: State[Any] = Cancelling(message=why) if cancelled else Crashed(message=why)
        server.set_flow_run_state(flow_run, state, force=not cancelled)


def crash(names: Collection[str]) -> None:
    """Mark the flow runs of these names as crashed that are still open: the processes that ran them are dead."""
    if not names:
        return
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.states import Crashed

    with contextlib.suppress(Away), client() as server:
        wanted = {"name": {"any_": list(names)}, "state": {"type": {"any_": ["RUNNING", "PENDING"]}}}
        for found in server.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted)):
            server.set_flow_run_state(found.id, Crashed(message="Its process was killed."), force=True)
