"""One stage as a process of its own: `dvc repro --single-item STAGE`, its words, its time limit, its end."""

import codecs
import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Literal

from flows.stage import confined
from flows.stage.measure import Meter

GRACE_SECONDS = 10.0  # between the request to end and the kill: enough to write a checkpoint
USER_ERROR = 2  # the exit code with which stages report a mistake of the user's: no retry helps
TAIL_LINES = 15
RESUMED = "going on from step "  # what a training prints that found its checkpoint: models.core.checkpoint.resume
REPRO = (sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item")
NOISE = (  # DVC's advice for people who type its commands
    "To track the changes with git, run:",
    "To enable auto staging, run:",
    "Use `dvc push`",
    "Updating lock file",
    "Generating lock file",
    "Data and pipelines are up to date",
    "\tgit add",
    "\tdvc ",
)

Action = Literal["ran", "restored", "current"]
Say = Callable[[str, bool], None]  # a text, and whether it is a whole line rather than the state of what goes on


class StageFailed(Exception):
    """A stage did not end well; the message has one line."""

    def __init__(self, stage: str, why: str, log: Path, *, retry: bool = True) -> None:
        super().__init__(f"{stage}: {why}")
        self.stage, self.why, self.log, self.retry = stage, why, log, retry

    def tail(self) -> list[str]:
        """The last lines that the stage printed."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [line for line in text.splitlines() if line.strip()][-TAIL_LINES:]


class Stopped(Exception):
    """The run was stopped while the stage worked."""


@dataclass
class _Watcher:
    """Cuts a stage's output into lines, keeps them in the log, and notices what DVC and the stage say."""

    log: Path
    say: Say
    action: Action = "ran"
    code: int | None = None  # what the stage itself exited with
    _rest: str = ""
    _decode: Callable[[bytes], str] = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")(errors="replace").decode
    )

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + self._decode(data)).split("\n")
        if lines:
            whole = [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in lines]
            with self.log.open("a") as sink:
                sink.writelines(f"{line}\n" for line in whole)
            for line in whole:
                self._line(line)
        if "\r" in self._rest:  # a progress bar: only its latest state counts
            states = [state for state in self._rest.split("\r") if state.strip()]
            self._rest = "\r" + states[-1] if states else ""
            if states:
                self.say(states[-1].strip(), False)

    def close(self) -> None:
        if self._rest.strip():
            self.feed(b"\n")

    def _line(self, line: str) -> None:
        if "is cached - skipping run" in line:
            self.action = "restored"
        elif "didn't change, skipping" in line:
            self.action = "current"
        elif found := re.search(r"failed to run: .*, exited with (-?\d+)", line):
            self.code = int(found[1])
        if line.strip() and not line.startswith(NOISE):
            self.say(line, True)


def run(
    stage: str,
    root: Path,
    environment: Mapping[str, str],
    log: Path,
    say: Say,
    stop: Event,
    timeout: float | None = None,
    meter: Meter | None = None,
    command: Sequence[str] = (),
) -> Action:
    """Bring one stage up to date in the workspace `root`, and say whether it ran.

    Everything it prints goes to `log` and, line by line, to `say`. StageFailed when it fails or takes longer than
    `timeout` seconds, Stopped when `stop` is set; no process of the stage is left behind in either case. `meter`
    knows what it cost, however it ended. `command` is run instead of DVC's own.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    watcher = _Watcher(log, say)
    meter = meter or Meter()
    process = subprocess.Popen(
        confined.command(command or [*REPRO, stage]),
        cwd=root,
        env=confined.variables(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches the flow alone, which then ends the whole group
    )
    meter.watch(process)
    try:
        _watch(process, meter, watcher, stop, timeout)
    except TimeoutError:
        watcher.close()
        raise StageFailed(stage, f"was stopped after {timeout:g} s, its time limit (meta.timeout)", log) from None
    finally:
        _end(process, meter)
    watcher.close()
    exited = meter.wait()
    if exited == 0:
        return watcher.action
    code = exited if watcher.code is None else watcher.code
    raise StageFailed(stage, _why(code), log, retry=code != USER_ERROR)


def _watch(process: subprocess.Popen, meter: Meter, watcher: _Watcher, stop: Event, timeout: float | None) -> None:
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    until = time.monotonic() + (timeout or float("inf"))
    while True:
        if select.select([pipe], [], [], 0.2)[0]:
            data = os.read(pipe, 1 << 16)
            if not data:
                break
            watcher.feed(data)
        elif meter.poll() is not None:
            break  # something the stage left behind holds the pipe open
        if stop.is_set():
            raise Stopped
        if time.monotonic() > until:
            raise TimeoutError
    meter.wait()


def _end(process: subprocess.Popen, meter: Meter) -> None:
    """End every process of the stage: DVC, its shell, the stage and the stage's workers share one group."""
    meter.look()
    for number in (signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + GRACE_SECONDS
        with contextlib.suppress(ProcessLookupError):  # nobody of the group is left
            os.killpg(process.pid, number)
            while time.monotonic() < until:
                meter.poll()
                os.killpg(process.pid, 0)
                time.sleep(0.05)
    meter.wait()
    if process.stdout is not None:
        process.stdout.close()


def _why(code: int) -> str:
    if code == USER_ERROR:
        return "reported a mistake in its input"
    number = -code if code < 0 else code - 128  # a shell reports a signal as 128 + its number
    if number in set(signal.Signals):
        name = signal.Signals(number).name
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"failed with exit code {code}"
