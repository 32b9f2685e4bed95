"""Prefect's server as a process that ends by itself when nobody uses it any more, however its users ended.

    python -m flows.server.local       # in the folder of its database; started by `flows.server.connect`

Two locks, which the operating system drops with the processes that hold them, say who is there. The runs share
`users.lock`, and the server waits until it can have it alone. `server.lock` belongs to the server from before it is
started, so that no moment is left in which a run could be killed and a server be unknown.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.core.params import UserError
from flows import state

START_SECONDS = 120  # 8 s on an idle machine; the first start also makes the database
END_SECONDS = 10.0  # within which a server that was asked to end has ended, or is killed


@dataclass(frozen=True)
class Server:
    """A server that is there; what it has not said yet, in the first second of its life, is empty."""

    api: str = ""
    pid: int = 0


@contextlib.contextmanager
def used(home: Path) -> Iterator[None]:
    """A server that runs in `home` goes on as long as the context; one that is just ending is waited for."""
    with (home / "users.lock").open("w") as users:
        _wait_for(users.fileno(), fcntl.LOCK_SH, home)
        yield


@contextlib.contextmanager
def owned(home: Path) -> Iterator[int]:
    """The lock of the server, as the open file that its process is to inherit."""
    with (home / "server.lock").open("w") as own:
        _wait_for(own.fileno(), fcntl.LOCK_EX, home)
        (home / "server.json").unlink(missing_ok=True)
        yield own.fileno()


def there(home: Path) -> Server | None:
    """The server that runs or is being started in `home`."""
    with (home / "server.lock").open("a") as own:
        if _had(own.fileno(), fcntl.LOCK_SH):
            return None
    try:
        return Server(**json.loads((home / "server.json").read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        return Server()


def main() -> None:
    import uvicorn

    home = Path.cwd()
    config = uvicorn.Config(app, factory=True, log_level="error", lifespan="on", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    threading.Thread(target=_end_with_the_last_user, args=[home, server], daemon=True).start()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        state.write(home / "server.json", {"api": address, "pid": os.getpid()})
        server.run(sockets=[listening])


def app() -> Any:
    from prefect.server.api.server import create_app

    return create_app()


def _end_with_the_last_user(home: Path, server: Any) -> None:
    """Wait for the moment in which no run holds the lock of the users, and end; no run can come in between.

    A start is not interrupted: it may be changing the tables of the database, and the next run may use the server.
    """
    until = time.monotonic() + START_SECONDS
    while not server.started and time.monotonic() < until:
        time.sleep(0.2)
    with (home / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        server.should_exit = True
        time.sleep(END_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)


def _wait_for(lock: int, kind: int, home: Path) -> None:
    """Have a lock that a server holds until its end, which is near."""
    until = time.monotonic() + 3 * END_SECONDS
    while not _had(lock, kind):
        if time.monotonic() > until:
            raise UserError(f"a Prefect server in {home} does not end; end the process that server.json there names")
        time.sleep(0.1)


def _had(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    main()
