"""The Prefect server of a run: a named one, or a local one that all runs of this machine share.

The local server keeps its database in `.remint/prefect`. The first run that needs it starts it, runs beside it use it,
and it ends by itself when the last of them is gone (`flows.server.local`): two servers on one SQLite file would only
get in each other's way. Starting it ourselves instead of leaving it to Prefect also keeps it alive through Ctrl-C, so
that the end of a run is recorded.
"""

import base64
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data.core import locks
from data.core.params import UserError
from flows.server import local
from flows.settings import Settings
from models.tracking.server import shown

COMMAND = (sys.executable, "-m", "flows.server.local")
LEAN = {  # what a server needs for one machine's runs: no web pages, no registry of block types
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "0",
}


@contextmanager
def borrowed(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a Prefect API that answers, for as long as the context lasts."""
    if settings.prefect_api:
        check(settings.prefect_api, "start it, or unset the variable to have one started for the run")
        yield settings.prefect_api
        return
    home = settings.home / "prefect"
    home.mkdir(parents=True, exist_ok=True)
    with local.used(home):
        with _locked(home):
            address = _running(home) or _start(home, environment)
        yield address


def check(api: str, advice: str = "start it, or correct the variable") -> None:
    """UserError, in one line that names the variable, if a Prefect server is not there or does not let us in."""
    named = f"REMINT_PREFECT_API={shown(api)}"
    if not answers(api):
        raise UserError(f"{named}: no Prefect server answers there; {advice}")
    login = os.environ.get("PREFECT_API_AUTH_STRING", "")
    headers = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
    try:
        request = urllib.request.Request(f"{api.rstrip('/')}/admin/version", headers=headers)
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            return  # not about who we are
        known = "does not know the user and password in" if login else "wants a user and password, as user:password, in"
        raise UserError(
            f"{named}: the Prefect server refuses ({error.code}): it {known} PREFECT_API_AUTH_STRING"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{named}: the Prefect server breaks off ({type(error).__name__}); {advice}") from None


def use(api: str) -> None:
    """Let this process talk to the Prefect server at `api`; before Prefect is imported: it reads this once."""
    os.environ["PREFECT_API_URL"] = api


def answers(api: str, seconds: float = 3.0) -> bool:
    """Whether a Prefect API is there."""
    try:
        with urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=seconds) as reply:
            return reply.status == 200
    except (OSError, ValueError):
        return False


def _running(home: Path) -> str | None:
    """The address of the local server, once it answers; one that is there and never answers is ended."""
    found = local.there(home)
    if found is None:
        return None
    until = time.monotonic() + local.START_SECONDS
    while time.monotonic() < until and local.there(home):
        if found.api and answers(found.api, seconds=1.0):
            return found.api
        time.sleep(0.1)
        found = local.there(home) or found
    if local.there(home) and found.pid:
        os.kill(found.pid, signal.SIGKILL)
    return None


def _start(home: Path, environment: Mapping[str, str]) -> str:
    log = home / "server.log"
    with log.open("w") as sink, local.owned(home) as own:
        process = subprocess.Popen(
            COMMAND,
            env={**environment, **LEAN},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[own],
            cwd=home,  # not the repository: its folder mlflow/ must not be taken for the library
        )
    if address := _running(home):
        return address
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    ended = f"did not answer in {local.START_SECONDS} s" if code == -signal.SIGKILL else f"ended with exit code {code}"
    raise UserError(f"Prefect's server {ended}; see its words in {log}")


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with locks.held(home / "start.lock"):
        yield
