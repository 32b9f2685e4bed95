"""The Prefect server of a run: a named one, or a local one that all runs of this machine share.

The local server keeps its database in `.remint/prefect`. The first run that needs it starts it, runs beside it use
it, and the last one stops it: two servers on one SQLite file would only get in each other's way. Starting it
ourselves instead of leaving it to Prefect also keeps it alive through Ctrl-C, so that the end of a run is recorded.
"""

import base64
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data.params import UserError
from flows.settings import Settings
from models.tracking import shown

START_SECONDS = 120  # 8 s on an idle machine; the first start also makes the database
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
    with (home / "users.lock").open("w") as users:
        with _locked(home):
            address = _running(home) or _start(home, environment)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield address
        finally:
            with _locked(home):
                _stop_if_last(home, users.fileno())


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


def answers(api: str, seconds: float = 3.0) -> bool:
    """Whether a Prefect API is there."""
    try:
        with urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=seconds) as reply:
            return reply.status == 200
    except (OSError, ValueError):
        return False


def _running(home: Path) -> str | None:
    try:
        address = json.loads((home / "server.json").read_text())["api"]
    except (OSError, ValueError, KeyError):
        return None
    return address if answers(address) else None


def _start(home: Path, environment: Mapping[str, str]) -> str:
    port = _free_port()
    address = f"http://127.0.0.1:{port}/api"
    log = home / "server.log"
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--log-level", "error", "--lifespan", "on"],
            env={**environment, **LEAN},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=home,  # not the repository: its folder mlflow/ must not be taken for the library
        )
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if answers(address, seconds=1.0):
            (home / "server.json").write_text(json.dumps({"api": address, "pid": process.pid}))
            return address
        time.sleep(0.1)
    if process.poll() is None:
        process.kill()
    raise UserError(f"Prefect's server did not start within {START_SECONDS} s; its words are in {log}")


def _stop_if_last(home: Path, users: int) -> None:
    """Stop the local server unless another run still uses it."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    if _running(home):
        pid = json.loads((home / "server.json").read_text())["pid"]
        os.kill(pid, signal.SIGTERM)
    (home / "server.json").unlink(missing_ok=True)


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
