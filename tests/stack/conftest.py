"""The stack without containers, started once: the very commands and settings of the containers, on ports of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from data.core.params import UserError
from infra.stack import native, processes
from infra.stack.native import Stack
from infra.stack.places import PORTS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Every service of docker-compose.yml, running; its workers fetch commits from a copy of this repository."""
    try:
        native.needed()
    except UserError as error:
        pytest.skip(f"{error}; .ci/run names the packages")
    home = Path(tempfile.mkdtemp(prefix="remint-stack-", dir="/tmp"))
    home.chmod(0o755)  # PostgreSQL serves as another user
    made = Stack(ROOT, home / "state", home / "secrets")
    made.state.mkdir()
    (made.state / "ports.json").write_text(json.dumps(dict(zip(PORTS, free_ports(len(PORTS)), strict=True))))
    origin = home / "origin.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(ROOT), str(origin)], check=True)
    os.environ["REMINT_ORIGIN"] = str(origin)
    try:
        made.up(1, "nogpu", print)
        yield made
    finally:
        del os.environ["REMINT_ORIGIN"]
        started = processes.read(made.state / "processes.json")
        made.down(print)
        assert [process.name for process in started if process.alive] == []
        shutil.rmtree(home, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Free ports whose thousandth successors are free as well: Ceph takes both."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            one, other = (held.enter_context(socket.socket()) for _ in range(2))
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                other.bind(("127.0.0.1", port + 1000))
            except (OSError, OverflowError):
                continue
            found.append(port)
    return found
