"""What a process cost: its own time and memory and those of everything it started, however it ended."""

import signal
import subprocess
import sys
import time

import pytest

from flows.stage.measure import Meter

BUSY = "import time\nuntil = time.process_time() + {seconds}\nwhile time.process_time() < until: pass\n"
FAT = "x = bytearray({megabytes} << 20)\n"


def measured(code, gpus=0):
    meter = Meter(gpus=gpus)
    meter.watch(subprocess.Popen([sys.executable, "-c", code], start_new_session=True))
    return meter


def parent_of(code):
    """A program that runs another one twice and itself does nothing."""
    return f"import subprocess, sys\nfor _ in range(2): subprocess.run([sys.executable, '-c', {code!r}])\n"


def test_time_and_memory_of_descendants_count():
    meter = measured(parent_of(BUSY.format(seconds=0.3) + FAT.format(megabytes=80)))
    assert meter.wait() == 0
    used = meter.usage()
    assert 0.6 <= used.cpu_seconds < 3.0
    assert used.peak_memory >= 80 << 20
    assert used.seconds >= 0.3
    assert used.gpu_seconds == 0


def test_a_killed_process_whose_child_nobody_waits_for_is_measured_too():
    meter = measured(parent_of(BUSY.format(seconds=100) + FAT.format(megabytes=1)))
    until = time.monotonic() + 60
    while time.monotonic() < until and meter.usage().cpu_seconds < 0.3:
        time.sleep(0.05)
        meter.look()
    subprocess.run(["kill", "-KILL", "--", f"-{meter._process.pid}"], check=True)
    assert meter.wait() == -signal.SIGKILL
    assert meter.usage().cpu_seconds >= 0.3


def test_gpus_count_as_long_as_they_are_held():
    meter = measured("import time; time.sleep(0.3)", gpus=2)
    meter.wait()
    seconds = meter.usage().seconds
    time.sleep(0.1)
    assert meter.usage().seconds == seconds  # it has ended
    assert meter.usage().gpu_seconds == pytest.approx(2 * seconds, abs=0.002)


def test_popen_agrees_about_the_exit_code():
    meter = measured("raise SystemExit(3)")
    assert meter.wait() == 3
    assert meter._process.poll() == 3
    assert meter.poll() == 3
