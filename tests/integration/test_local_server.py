"""The local Prefect server, which no end of a run leaves behind: shown on a small one that starts when it is told."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.server import connect, local
from flows.settings import Settings

pytestmark = pytest.mark.integration

SLOW = """
import asyncio
from pathlib import Path
from flows.server import local as serve

async def slow(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"true"})
        return
    while (await receive())["type"] == "lifespan.startup":
        while not Path("go").exists():
            await asyncio.sleep(0.02)
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})

serve.app = lambda: slow
serve.main()
"""
RUN = """
import os, signal, sys
from pathlib import Path
from flows.server import connect as server
from flows.console import one_line_errors
from flows.settings import Settings

signal.signal(signal.SIGINT, signal.default_int_handler)
server.COMMAND = (sys.executable, "-c", sys.argv[2])
with one_line_errors(), server.borrowed(Settings(root=Path(sys.argv[1])), os.environ) as api:
    print(api, flush=True)
    sys.stdin.read()
"""


def heeds_hangups() -> None:
    """As in a terminal, whatever these tests were started under: what nohup starts ignores them, and so does a run."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class Machine:
    """Runs and servers of one home."""

    def __init__(self, root: Path) -> None:
        self.root, self.home = root, root / ".remint" / "prefect"
        self.home.mkdir(parents=True)
        self.runs: list[subprocess.Popen] = []

    def run(self) -> subprocess.Popen:
        """A process that needs the server until its standard input is closed."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-c", RUN, self.root, SLOW]
        self.runs.append(subprocess.Popen(command, text=True, preexec_fn=heeds_hangups, **pipes))
        return self.runs[-1]

    def go(self) -> None:
        (self.home / "go").touch()

    def started(self) -> local.Server:
        """The server once it has its address."""
        until(lambda: (found := local.there(self.home)) is not None and found.pid)
        found = local.there(self.home)
        assert found is not None
        return found

    def in_use(self) -> bool:
        """Whether a run has asked for the server and lives."""
        with (self.home / "users.lock").open("a") as users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def alone(self) -> None:
        """Wait until no server is there."""
        until(lambda: local.there(self.home) is None)


def until(true) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not become true in 30 s")


@pytest.fixture
def machine(tmp_path):
    made = Machine(tmp_path)
    yield made
    made.go()
    for run in made.runs:
        run.kill()
        run.communicate()
    made.alone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_a_run_that_ends_while_its_server_starts_leaves_none(machine, number):
    run = machine.run()
    machine.started()
    run.send_signal(number)
    run.communicate()
    assert run.returncode == (-number if number == signal.SIGKILL else 130)
    machine.go()  # a start is not interrupted, for it may be changing tables
    machine.alone()


def test_a_server_that_a_killed_run_started_serves_the_next_run_and_ends_with_it(machine):
    killed = machine.run()
    first = machine.started()
    killed.kill()
    killed.wait()
    following = machine.run()
    until(machine.in_use)
    machine.go()
    assert following.stdout.readline().strip() == first.api
    killed_in_use = machine.run()
    assert killed_in_use.stdout.readline().strip() == first.api
    killed_in_use.kill()
    killed_in_use.wait()
    assert local.there(machine.home) == first
    following.communicate()  # closes its standard input
    assert following.returncode == 0
    machine.alone()


def test_a_server_that_never_answers_is_ended_and_the_run_says_where_its_words_are(machine, monkeypatch):
    monkeypatch.setattr(local, "START_SECONDS", 3)
    monkeypatch.setattr(connect, "COMMAND", (sys.executable, "-c", SLOW))
    said = r"Prefect's server did not answer in 3 s; see its words in .*server.log"
    with pytest.raises(UserError, match=said), connect.borrowed(Settings(root=machine.root), os.environ):
        raise AssertionError
    assert local.there(machine.home) is None


def test_a_server_that_breaks_off_is_named_with_its_exit_code(machine, monkeypatch):
    monkeypatch.setattr(connect, "COMMAND", (sys.executable, "-c", "raise SystemExit(7)"))
    said = r"Prefect's server ended with exit code 7; see its words in .*server.log"
    with pytest.raises(UserError, match=said), connect.borrowed(Settings(root=machine.root), os.environ):
        raise AssertionError
