"""Prefect flow runs that ask a pool's workers to take an attempt: made, looked at, ended.

Prefect decides which worker takes an attempt and shows it; what came of it is in the ledger. So nothing here has to
succeed for a run to go on: who is answered None asks again later.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from data.core.params import UserError
from flows.remote.ledger import Attempt

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

Stand = Literal[
    "waiting",  # no worker has taken it
    "taken",
    "cancelled",  # by a person
    "ended",
    "lost",  # the server does not know it: its database was set back
]

ANSWER_SECONDS = 15.0


def use(api: str) -> None:
    """Let this process talk to the Prefect server at `api`; before Prefect is imported: it reads this once."""
    os.environ["PREFECT_API_URL"] = api


def place(attempt: Attempt) -> UUID | None:
    """Ask the attempt's pool for a worker; the same attempt twice is one flow run. None: the server does not answer."""
    work = attempt.work
    name = f"{work.stage} {work.run}" + (f" part {work.part}" if work.part else "")
    body = {
        "name": name,
        "parameters": {"place": attempt.place},
        # the place alone is not enough: after its work was forgotten, a later attempt gets the same one
        "idempotency_key": f"{attempt.place}/{attempt.token}",
    }
    with _away(), _client() as client:
        from prefect.exceptions import ObjectNotFound

        try:
            deployment = client.read_deployment_by_name(f"stage/{work.pool}")
        except ObjectNotFound:
            raise UserError(
                f"Prefect has no deployment stage/{work.pool}; start a worker: remint worker --pool {work.pool}"
            ) from None
        # not the client's own method: it would schedule the run by this machine's clock instead of the server's
        answer = client.request(
            "POST", "/deployments/{id}/create_flow_run", path_params={"id": deployment.id}, json=body
        )
        return UUID(answer.json()["id"])
    return None


def stand(flow_run: UUID) -> Stand | None:
    """Where a flow run stands; None: the server does not answer."""
    with _away(), _client() as client:
        from prefect.exceptions import ObjectNotFound

        try:
            state = client.read_flow_run(flow_run).state
        except ObjectNotFound:
            return "lost"
        if state is None or state.is_scheduled():
            return "waiting"
        if state.is_cancelled() or state.is_cancelling():
            return "cancelled"
        return "ended" if state.is_final() else "taken"
    return None


def end(flow_run: UUID, why: str, *, cancelled: bool) -> None:
    """Mark a flow run whose attempt was closed here, so that it holds no slot and no worker takes it; if it can be."""
    with _away(), _client() as client:
        from prefect.states import Cancelled, Crashed

        client.set_flow_run_state(flow_run, Cancelled(message=why) if cancelled else Crashed(message=why), force=True)


def crash(names: Collection[str]) -> None:
    """Mark the flow runs of these names as crashed that are still open: the processes that ran them are dead."""
    if not names:
        return
    with _away(), _client() as client:
        from prefect.client.schemas.filters import FlowRunFilter
        from prefect.states import Crashed

        wanted = {"name": {"any_": list(names)}, "state": {"type": {"any_": ["RUNNING", "PENDING"]}}}
        for found in client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(wanted)):
            client.set_flow_run_state(found.id, Crashed(message="Its process was killed."), force=True)


@contextlib.contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    """A client that asks twice at most: Prefect's own patience is a minute, during which no outcome would be seen."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    impatient = {PREFECT_CLIENT_MAX_RETRIES: 1, PREFECT_API_REQUEST_TIMEOUT: ANSWER_SECONDS}
    with temporary_settings(impatient), get_client(sync_client=True) as client:
        yield client


@contextlib.contextmanager
def _away() -> Iterator[None]:
    """Pass over what says no more than that the server is away, or is just starting."""
    import httpx

    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise UserError("REMINT_PREFECT_API: the Prefect server refuses; set PREFECT_API_AUTH_STRING") from None
    except httpx.HTTPError:
        pass
