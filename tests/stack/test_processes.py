"""Processes that are written down: found again, not mistaken for others, ended with all that they started."""

import os
import subprocess
import time
from dataclasses import replace

import pytest

from data.core.params import UserError
from infra.stack import postgres, processes, s3


def start(tmp_path, *command):
    return processes.start("one", "service", command, dict(os.environ), tmp_path / "work", tmp_path / "log")


def test_one_is_found_again_and_ended_with_its_children(tmp_path):
    made = start(tmp_path, "sh", "-c", "sleep 600 & echo $! > child; wait")
    processes.write(tmp_path / "processes.json", [made])
    (found,) = processes.read(tmp_path / "processes.json")
    assert found == made
    assert found.alive
    while not (tmp_path / "work" / "child").exists() or not (tmp_path / "work" / "child").read_text().strip():
        time.sleep(0.01)
    child = int((tmp_path / "work" / "child").read_text())
    processes.end([found])
    assert not found.alive
    until = time.monotonic() + 5
    while processes._born(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert processes._born(child) == ""


def test_what_a_killed_one_left_goes_too(tmp_path):
    made = start(tmp_path, "sh", "-c", "sleep 600 & echo $! > child; exec sleep 600")
    while not (tmp_path / "work" / "child").exists() or not (tmp_path / "work" / "child").read_text().strip():
        time.sleep(0.01)
    child = int((tmp_path / "work" / "child").read_text())
    os.kill(made.pid, 9)
    until = time.monotonic() + 5
    while made.alive and time.monotonic() < until:
        time.sleep(0.01)
    assert processes._born(child)
    processes.end([made])
    while processes._born(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert processes._born(child) == ""


def test_one_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.3)
    made = start(tmp_path, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    while "ready" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
    processes.end([made])
    assert not made.alive


def test_another_process_that_has_its_number_now_is_left_alone(tmp_path):
    other = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        stale = replace(start(tmp_path, "true"), pid=other.pid, born="1")
        assert not stale.alive
        processes.end([stale])
        time.sleep(0.2)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_program_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UserError, match="one cannot be started: nonsense: No such file"):
        start(tmp_path, "nonsense")


def test_servers_that_were_killed_with_the_machine_are_not_taken_for_running(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n/somewhere\n")  # now of another program
    for name in ("mon", "osd", "mgr", "rgw"):
        (tmp_path / f"{name}.pid").write_text("999999999\n")
    assert not postgres.runs(tmp_path)
    assert not s3.runs(tmp_path)
    assert not postgres.runs(tmp_path / "nothing")
