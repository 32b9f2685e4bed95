"""MLflow's and Prefect's pages on localhost, over the state that the runs left in `.remint`.

    remint ui        # or: make ui; Ctrl-C ends both

Prints both addresses when both answer, after about ten seconds. The servers only show: a run started meanwhile uses
the same databases, and its stages and losses appear on the pages.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.core.params import UserError
from flows.settings import Settings, child_environment
from models.tracking.server import shown

MLFLOW_PORT, PREFECT_PORT = 5000, 4200  # where people expect them; the next free ones if they are taken
START_SECONDS = 120
TRAINING = "/#/experiments?workflowType=machine_learning"  # its first page is about language models, and telemetry
# Prefect's pages ask an analytics host whatever its settings say; a browser that is told so asks only this machine
POLICY = (
    "content-security-policy:default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob: "
    "http://127.0.0.1:* http://localhost:* ws://127.0.0.1:* ws://localhost:*"
)


@dataclass(frozen=True)
class Page:
    """One tool's pages: where they are, and how to start the server behind them ("" and () if it runs elsewhere)."""

    tool: str
    address: str
    health: str = ""
    command: Sequence[str] = ()
    environment: Mapping[str, str] | None = None
    first: str = ""  # what to open of it


def serve(settings: Settings) -> None:
    """Start both servers, print their addresses and wait for Ctrl-C; UserError when one does not start or dies."""
    settings.home.mkdir(parents=True, exist_ok=True)
    pages = [mlflow_page(settings), prefect_page(settings)]
    try:
        with ExitStack() as stack:
            own = [page for page in pages if page.command]
            if own:
                print(f"starting {' and '.join(page.tool for page in own)} ...", flush=True)
            servers = {page.tool: stack.enter_context(_running(page, settings.home)) for page in own}
            for page in own:
                _wait_for(page, servers[page.tool], settings.home)
            for page in pages:
                print(f"{page.tool:8} {page.address}{page.first}", flush=True)
            if own:
                print("Ctrl-C ends both" if len(own) == 2 else "Ctrl-C ends it", flush=True)
                _watch(servers, settings.home)
    except KeyboardInterrupt:
        print()


def mlflow_page(settings: Settings) -> Page:
    """MLflow over the embedded database, or the server that is named in the settings."""
    uri = settings.mlflow_uri
    if uri.startswith(("http://", "https://")):
        return Page("MLflow", shown(uri).rstrip("/"), first=TRAINING)
    port = free_port(MLFLOW_PORT)
    store = ["--backend-store-uri", uri, "--default-artifact-root", str(settings.home / "mlflow")]
    program = str(Path(sys.executable).with_name("mlflow"))  # `python -m mlflow` does not exist
    command = [program, "server", *store, "--host", "127.0.0.1", "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    # Its job runner is eight processes for features of language models.
    environment = child_environment(settings) | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command += ["--workers", "1", "--uvicorn-opts", f'--header "{POLICY}"']
    return Page("MLflow", address, f"{address}/health", command, environment, TRAINING)


def prefect_page(settings: Settings) -> Page:
    """Prefect over the runs' database, or the server that is named in the settings."""
    if settings.prefect_api:
        return Page("Prefect", shown(settings.prefect_api).rstrip("/").removesuffix("/api"))
    port = free_port(PREFECT_PORT)
    address = f"http://127.0.0.1:{port}"
    only_show = {  # no schedulers: a run brings the server that works for it
        "PREFECT__SERVER_WEBSERVER_ONLY": "1",
        "PREFECT_UI_ENABLED": "1",
        "PREFECT_UI_API_URL": f"{address}/api",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "0",
    }
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning", "--header", POLICY]
    return Page("Prefect", address, f"{address}/api/health", command, child_environment(settings) | only_show)


def free_port(wanted: int) -> int:
    """The first port from `wanted` on that nobody listens on."""
    for port in range(wanted, wanted + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise UserError(f"no free port between {wanted} and {wanted + 99}; end another server first")


@contextmanager
def _running(page: Page, home: Path) -> Iterator[subprocess.Popen]:
    """The server as a process group of its own, ended when the context is left."""
    (home / page.tool.lower()).mkdir(exist_ok=True)
    with _log(page.tool, home).open("w") as log:
        server = subprocess.Popen(
            page.command,
            env=page.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the servers in order
            cwd=home,  # not the repository: its folder mlflow/ must not be taken for the library
        )
    try:
        yield server
    finally:
        _end(server)


def _end(server: subprocess.Popen) -> None:
    """End a server with its workers, gently at first."""
    for kind, seconds in ((signal.SIGTERM, 5), (signal.SIGKILL, 5)):
        try:
            os.killpg(server.pid, kind)
            server.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _wait_for(page: Page, server: subprocess.Popen, home: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            urllib.request.urlopen(page.health, timeout=2).close()
            return
        except (OSError, urllib.error.URLError):
            time.sleep(0.2)
    raise UserError(f"{page.tool}'s server did not start; see its words in {_log(page.tool, home)}")


def _watch(servers: Mapping[str, subprocess.Popen], home: Path) -> None:
    """Wait until a server ends by itself, which is an error."""
    while True:
        for tool, server in servers.items():
            if server.poll() is not None:
                raise UserError(f"{tool}'s server ended; see its words in {_log(tool, home)}")
        time.sleep(0.5)


def _log(tool: str, home: Path) -> Path:
    return home / f"{tool.lower()}-ui.log"
