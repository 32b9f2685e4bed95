"""Processes that go on after the command that started them: written down, found again, ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from data.core.params import UserError
from flows import state

GRACE_SECONDS = 45.0  # a worker writes a checkpoint and gives its stage back within 20


@dataclass(frozen=True)
class Process:
    """A process that was started, as the leader of a group of its own."""

    name: str
    service: str
    pid: int
    born: str  # when, in the kernel's words: a process that has the number later is another

    @property
    def alive(self) -> bool:
        return _born(self.pid) == self.born


def start(
    name: str, service: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path
) -> Process:
    """Start a command in `folder`; what it says goes to `log`."""
    folder.mkdir(parents=True, exist_ok=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as sink:
        try:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"{name} cannot be started: {command[0]}: {error.strerror}; install it") from None
    return Process(name, service, child.pid, _born(child.pid))


def end(processes: Sequence[Process]) -> None:
    """End them together: asked first, and killed if they do not listen."""
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        left = [process for process in processes if process.alive]
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(process.alive for process in left):
            time.sleep(0.1)
    for process in processes:
        if _born(process.pid) in ("", process.born):  # else the number is another's; a group keeps it from becoming so
            with contextlib.suppress(ProcessLookupError):  # what it started and left
                os.killpg(process.pid, signal.SIGKILL)


def write(path: Path, processes: Sequence[Process]) -> None:
    state.write(path, [asdict(process) for process in processes])


def read(path: Path) -> list[Process]:
    step = f"end what still runs of the stack by hand (ps -ef), then rm '{path}'"
    return state.read(path, lambda values: [Process(**one) for one in values], step) or []


def _born(pid: int) -> str:
    """The start time of a process in seconds, "" if there is none that runs."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # our own child that has ended would stay as a zombie
    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return ""
