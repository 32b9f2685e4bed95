"""Prefect flow runs that carry orders to workers: submitted, looked at all at once, ended.

    with flowruns.client() as api:
        flow_run = flowruns.submit(api, attempt)
        seen = flowruns.look(api, [flow_run, ...])

What came of an order is in the bucket. Prefect decides which worker takes it, shows it, and says whether somebody
still works on it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from data.core.params import UserError
from flows.storage.protocol import Denied
from flows.workers.orders import Attempt

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FLOW = "stage"
BEAT = "prefect.flow-run.heartbeat"
ANSWER_SECONDS = 15.0
PAGE = 200  # rows that the server gives at once
ASKED = 1000  # flow runs that are asked for at once
WAITING = "SCHEDULED"
WORKING = ("PENDING", "RUNNING")  # between waiting and the end
OVER = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Away(UserError):
    """Prefect's server does not answer."""


@dataclass(frozen=True)
class Seen:
    """A flow run as the server has it."""

    state: str  # "SCHEDULED", "PENDING", "RUNNING", "CANCELLING" or one of OVER
    message: str = ""
    beat: str = ""  # differs from what it was after each sign of life
    words: str = ""  # the last of the stage


@contextlib.contextmanager
def client() -> Iterator[SyncPrefectClient]:
    """A client of the server at PREFECT_API_URL that asks twice at most; what it refuses is one line.

    Prefect's own would try for a minute, during which no outcome would be seen.
    """
    from prefect.client.orchestration import get_client  # not before: Prefect takes a second to load
    from prefect.settings import (
        PREFECT_API_REQUEST_TIMEOUT,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    quick: dict[Any, Any] = {PREFECT_CLIENT_MAX_RETRIES: 1, PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS}
    chosen = temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"], **quick})
    with explained(), chosen, get_client(sync_client=True) as made:
        yield made


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Away, Denied or UserError, each one line, for what the server or the way to it does wrong."""
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as error:
        code, named = error.response.status_code, "REMINT_PREFECT_API: the Prefect server answers"
        if code in (401, 403):
            raise Denied(f"{named} {code}; set PREFECT_API_AUTH_STRING") from None
        raise (Away if code >= 500 else UserError)(f"{named} {code}; look at the server's log") from None
    except httpx.HTTPError as error:
        raise Away(
            f"REMINT_PREFECT_API: the Prefect server does not answer ({type(error).__name__}); start it, or "
            "correct the variable"
        ) from None


def submit(api: SyncPrefectClient, attempt: Attempt, deployments: dict[str, UUID]) -> UUID:
    """Ask the pool for a worker; the same attempt twice, by whomever, is one flow run. UserError, Away.

    deployments: those already looked up, by pool; added to.
    """
    from prefect.exceptions import ObjectNotFound

    order = attempt.order
    body = {
        "name": f"{order.stage} {order.run}" + (f" part {order.part}" if order.part else ""),
        "parameters": {"order": attempt.place},
        "idempotency_key": f"{attempt.place}/{attempt.token}",
    }
    with explained():
        try:
            if order.pool not in deployments:
                deployments[order.pool] = api.read_deployment_by_name(f"{FLOW}/{order.pool}").id
        except ObjectNotFound:
            raise UserError(f"Prefect has no deployment {FLOW}/{order.pool}; make it: remint deploy") from None
        # not the client's own method: it would schedule the run by this machine's clock instead of the server's
        path = {"id": deployments[order.pool]}
        return UUID(api.request("POST", "/deployments/{id}/create_flow_run", None, path, json=body).json()["id"])


def look(api: SyncPrefectClient, flow_runs: Sequence[UUID]) -> dict[UUID, Seen]:
    """Where flow runs stand, in few requests however many they are; Away.

    One that the server does not know, because its database was set back, has crashed. The sign of life and the words of
    one that runs are its progress artifact (`flows.stage.progress_artifact`): when it was last drawn, by the server's
    clock, and what it says.
    """
    seen: dict[UUID, Seen] = {}
    for start in range(0, len(flow_runs), ASKED):
        asked = flow_runs[start : start + ASKED]
        wanted: dict[str, Any] = {"id": {"any_": list(map(str, asked))}}
        started = {"state": {"type": {"any_": [*WORKING, "CANCELLING", *OVER]}}}
        found = _every(api, "/flow_runs/filter", flow_runs=wanted | started)
        rows = [row["state"] | {"run": row["id"]} for row in found]
        running = [row["run"] for row in rows if row["type"] == "RUNNING"]
        drawn = _every(api, "/artifacts/filter", artifacts={"flow_run_id": {"any_": running}}) if running else []
        bars = {bar["flow_run_id"]: bar for bar in drawn}
        for row in rows:
            bar = bars.get(row["run"], {})
            beat, words = f"{row['timestamp']} {bar.get('updated', '')}", bar.get("description") or ""
            seen[UUID(row["run"])] = Seen(row["type"], row.get("message") or "", beat, words)
        waiting = [one for one in asked if one not in seen]
        if waiting and api.request("POST", "/flow_runs/count", json={"flow_runs": wanted}).json() == len(asked):
            seen |= dict.fromkeys(waiting, Seen(WAITING))
        elif waiting:
            known = {UUID(row["id"]) for row in _every(api, "/flow_runs/filter", flow_runs=wanted)}
            unknown = Seen("CRASHED", "the Prefect server does not know its flow run")
            seen |= {one: Seen(WAITING) if one in known else unknown for one in waiting}
    return seen


def end(flow_run: UUID, why: str, *, cancelled: bool) -> None:
    """End a flow run that nobody waits for: its worker stops it, and no other takes it; if the server answers."""
    from prefect.exceptions import ObjectNotFound
    from prefect.states import Cancelling, Crashed

    with contextlib.suppress(Away, ObjectNotFound), client() as api:
        state: Any = Cancelling(message=why) if cancelled else Crashed(message=why)
        api.set_flow_run_state(flow_run, state, force=not cancelled)


def crash(names: Collection[str]) -> None:
    """Mark the flow runs of these names as crashed that are still open: the processes that ran them are dead."""
    if not names:
        return
    wanted = {"name": {"any_": list(names)}, "state": {"type": {"any_": list(WORKING)}}}
    with contextlib.suppress(Away):
        with client() as api:
            found = _every(api, "/flow_runs/filter", flow_runs=wanted)
        for row in found:
            end(UUID(row["id"]), "Its process was killed.", cancelled=False)


def _every(api: SyncPrefectClient, path: Any, **filters: Any) -> list[dict[str, Any]]:
    """All rows of an answer in pages; as the server wrote them, because to parse 1,000 takes a second."""
    rows: list[dict[str, Any]] = []
    while True:
        page = api.request("POST", path, json={**filters, "limit": PAGE, "offset": len(rows)}).json()
        rows += page
        if len(page) < PAGE:
            return rows
