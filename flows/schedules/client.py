"""The Prefect server that keeps schedules: the one that REMINT_PREFECT_API names, its errors in one line.

Import nothing of Prefect before `opened`: it reads its settings from the environment when it is imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from data.core.params import UserError
from flows.server import connect
from flows.settings import QUIET, Settings
from models.tracking.server import shown

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def check(settings: Settings) -> str:
    """The address of the server; UserError if none is named or none answers there."""
    if not settings.prefect_api:
        raise UserError(
            "schedules need a Prefect server that stays: name it with REMINT_PREFECT_API, "
            "such as http://127.0.0.1:4200/api"
        )
    connect.check(settings.prefect_api)
    return settings.prefect_api


def prepare(settings: Settings) -> None:
    """What Prefect is to find in the environment when it is imported: no telemetry, its state in the home."""
    os.environ.update(QUIET)
    os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect"))


@contextmanager
def opened(settings: Settings) -> Iterator[SyncPrefectClient]:
    """A client of the server; what it refuses is a UserError that names the variable."""
    address = check(settings)
    prepare(settings)
    os.environ["PREFECT_API_URL"] = address
    from httpx import HTTPStatusError, TransportError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, temporary_settings

    try:
        with temporary_settings({PREFECT_API_URL: address}), get_client(sync_client=True) as client:
            yield client
    except (HTTPStatusError, PrefectHTTPStatusError) as error:
        code = error.response.status_code
        advice = "check PREFECT_API_AUTH_STRING" if code in (401, 403) else "look at the server's logs"
        raise UserError(f"the Prefect server at {shown(address)} answers {code}; {advice}") from None
    except TransportError as error:
        raise UserError(
            f"the Prefect server at {shown(address)} went away ({type(error).__name__}); start it, then again"
        ) from None
