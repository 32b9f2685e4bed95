"""One stage as a process of its own: its end, its time limit, and that nothing of it is left behind."""

import os
import sys
import threading
import time

import pytest

from flows import settings
from flows.pipeline import workspace
from flows.stage import process
from flows.stage.process import StageFailed, Stopped

pytestmark = pytest.mark.integration


@pytest.fixture
def stage(make_toy, tmp_path):
    """Runs a stage of the small repository, in which `base` is a shell command."""

    def run(command, stop=None, timeout=None):
        toy = make_toy(tmp_path)
        (toy.root / "dvc.yaml").write_text(f"stages: {{base: {{cmd: '{command}', deps: [stage.py], outs: [out]}}}}\n")
        log = tmp_path / "base.log"
        said = []
        action = process.run(
            "base", toy.root, os.environ, log, lambda text, _: said.append(text), stop or threading.Event(), timeout
        )
        return action, said

    return run


def sleepers(seconds):
    return [line for line in os.popen("ps -eo args").read().splitlines() if line == f"sleep {seconds}"]


def test_a_stage_that_ends_well_has_run_and_its_words_were_heard(stage):
    action, said = stage("echo hello; touch out")
    assert action == "ran"
    assert "hello" in said
    assert not [line for line in said if "git add" in line]


def test_exit_code_two_is_a_mistake_that_no_retry_helps(stage):
    with pytest.raises(StageFailed, match="base: reported a mistake in its input") as error:
        stage("echo wrong; exit 2")
    assert not error.value.retry
    assert "wrong" in error.value.tail()


def test_any_other_exit_code_is_worth_a_retry(stage):
    with pytest.raises(StageFailed, match="base: failed with exit code 3") as error:
        stage("exit 3")
    assert error.value.retry


def test_a_stage_over_its_time_limit_is_ended_with_all_its_processes(stage):
    with pytest.raises(StageFailed, match=r"was stopped after 3 s, its time limit \(meta.timeout\)"):
        stage("sleep 3141 & sleep 3142", timeout=3)
    assert not sleepers(3141)
    assert not sleepers(3142)


def test_stopping_a_run_ends_the_stage_with_all_its_processes(stage):
    stop = threading.Event()

    def stop_it():
        while not sleepers(3143):
            time.sleep(0.1)
        stop.set()

    threading.Thread(target=stop_it).start()
    with pytest.raises(Stopped):
        stage("sleep 3143 & sleep 3144", stop=stop)
    assert not sleepers(3143)
    assert not sleepers(3144)


def test_a_stage_runs_the_commits_code_whatever_the_environment_says(make_toy, tmp_path, monkeypatch):
    (tmp_path / "toy").mkdir()
    toy = make_toy(tmp_path / "toy")
    (toy.root / "data").mkdir()
    (toy.root / "data" / "__init__.py").touch()
    (toy.root / "data" / "say.py").write_text("print('as committed')\nopen('out', 'w').close()\n")
    (toy.root / "dvc.yaml").write_text("stages: {say: {cmd: python -m data.say, deps: [data], outs: [out]}}\n")
    toy.git("add", "--all")
    toy.git("commit", "--quiet", "--message", "Say something")
    (toy.root / "data" / "say.py").write_text("print('as it lies in the checkout')\nopen('out', 'w').close()\n")
    user = tmp_path / "user" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    user.mkdir(parents=True)
    for name in ("usercustomize", "sitecustomize"):
        (user / f"{name}.py").write_text("raise SystemExit('of the user')")
    (tmp_path / "rc").write_text("python() { echo as a function; }\n")
    variables = {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{toy.root}:{user}", "PYTHONUSERBASE": str(tmp_path / "user")}
    variables |= {"BASH_ENV": str(tmp_path / "rc"), "SHELL": "/bin/bash", "PYTHONWARNINGS": "error"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    chosen, said = settings.load(toy.root), []
    with workspace.opened(chosen, toy.git("rev-parse", "HEAD"), "20260101T000000Z-0000000") as root:
        where = (root, settings.child_environment(chosen), tmp_path / "say.log")
        process.run("say", *where, lambda text, _: said.append(text), threading.Event())
    assert [line for line in said if line.startswith("as ")] == ["as committed"]
