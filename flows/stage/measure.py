"""What a process cost: wall time, processor time of all its descendants, the memory of the largest, GPU time.

    meter = Meter(gpus=1)
    meter.watch(process)                 # a subprocess.Popen that leads a session
    while meter.poll() is None: ...
    meter.usage()

The kernel adds up what a process and every descendant that was waited for used, and hands it to whoever waits for
that process: so it is waited for here, by wait4, and nothing is sampled. Only a stage that is about to be killed is
looked at in /proc before: its descendants may end without anybody waiting for them.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from flows.stage.spending import Usage

TICKS = os.sysconf("SC_CLK_TCK")
KILOBYTE = 1024  # Linux counts ru_maxrss and VmHWM in it


@dataclass
class Meter:
    """Waits for one process and keeps what it used; `usage` may be asked whenever and however it ended."""

    gpus: int = 0  # how many the stage holds while it works
    _process: subprocess.Popen | None = None
    _began: float = 0.0
    _ended: float | None = None
    _cpu: float = 0.0
    _memory: int = 0
    _lost: tuple[float, int] = field(default=(0.0, 0))  # cpu seconds and memory as `look` saw them

    def watch(self, process: subprocess.Popen) -> None:
        """Begin; from now on `poll` and `wait` here stand for those of the process."""
        self._process, self._began = process, time.monotonic()

    def poll(self) -> int | None:
        """The exit code, None while the process lives."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        """Wait for the end of the process and return its exit code."""
        code = self._reap(0)
        assert code is not None
        return code

    def look(self) -> None:
        """Note what the session of the process has used so far, before it is killed."""
        if self._process is not None and self._process.returncode is None:
            self._lost = _session(self._process.pid)

    def usage(self) -> Usage:
        """What was used up to the end, or up to now."""
        if self._process is None:
            return Usage()
        seconds = (time.monotonic() if self._ended is None else self._ended) - self._began
        cpu, memory = max(self._cpu, self._lost[0]), max(self._memory, self._lost[1])
        return Usage(
            seconds=round(seconds, 3),
            cpu_seconds=round(cpu, 3),
            gpu_seconds=round(seconds * self.gpus, 3),
            peak_memory=memory,
        )

    def _reap(self, flags: int) -> int | None:
        process = self._process
        assert process is not None, "watch a process first"
        if process.returncode is None:
            pid, status, used = os.wait4(process.pid, flags)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)  # Popen asks the kernel no more
                self._note(used)
        return process.returncode

    def _note(self, used: resource.struct_rusage) -> None:
        self._ended = time.monotonic()
        self._cpu, self._memory = used.ru_utime + used.ru_stime, used.ru_maxrss * KILOBYTE


def _session(leader: int) -> tuple[float, int]:
    """Processor seconds of the living processes of a session and of those they waited for; memory of the largest."""
    cpu, memory = 0.0, 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # it has just ended
            numbers = (folder / "stat").read_text().rpartition(")")[2].split()  # from the third field on
            if int(numbers[3]) == leader:
                cpu += sum(map(int, numbers[11:15])) / TICKS
                peak = re.search(r"^VmHWM:\s*(\d+)", (folder / "status").read_text(), re.MULTILINE)
                memory = max(memory, int(peak[1]) * KILOBYTE if peak else 0)
    return cpu, memory
