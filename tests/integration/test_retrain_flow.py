"""Whole runs of a small graph: what they record, what a second one does, how they fail, stop and go on."""

import json
import os
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from flows import settings
from flows.server import connect
from tests.integration.conftest import ODD

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def toy(make_toy, tmp_path_factory):
    """The repository with its local Prefect server up: the runs of this module share it, as runs do.

    Its path holds what has a meaning in addresses, ini files and shells.
    """
    made = make_toy(tmp_path_factory.mktemp("toy") / ODD)
    chosen = settings.load(made.root)
    with connect.borrowed(chosen, settings.child_environment(chosen)):
        yield made


@pytest.fixture(scope="module")
def first(toy):
    done = toy.remint("retrain", "--json")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return json.loads(done.stdout)


def prefect(toy, question):
    """Rows of Prefect's database."""
    with closing(sqlite3.connect(toy.root / ".remint" / "prefect" / "prefect.db")) as database:
        return database.execute(question).fetchall()


def catalogue(toy, question):
    """Rows of the catalogue."""
    with closing(sqlite3.connect(toy.root / ".remint" / "catalogue.db")) as database:
        return database.execute(question).fetchall()


def actions(result):
    return {stage["stage"]: stage["action"] for stage in result["stages"]}


def working(toy, text):
    """Whether a process with `text` in its command line works in a worktree of the repository."""
    found = os.popen("ps -eo args").read()
    return any(text in line and "stage.py" in line for line in found.splitlines())


def test_a_first_run_runs_every_stage_and_reports_it(first):
    assert actions(first) == dict.fromkeys(["base", "left", "right@a", "right@b", "end"], "ran")
    left = next(stage for stage in first["stages"] if stage["stage"] == "left")
    assert (left["metric"], left["value"]) == ("psnr", 20.5)
    assert left["seconds"] > 0


def test_the_run_is_a_tagged_commit_beside_the_users_branch(toy, first):
    assert toy.git("cat-file", "-t", first["tag"]) == "tag"
    assert toy.git("rev-parse", f"{first['tag']}^{{commit}}") == first["commit"]
    assert toy.git("rev-parse", f"{first['commit']}^") == toy.git("rev-parse", "HEAD")
    assert toy.git("diff", "--name-only", "HEAD", first["commit"]) == "dvc.lock"
    assert toy.git("status", "--porcelain") == ""


def test_the_recorded_lock_has_the_stages_in_the_order_of_the_graph(toy, first):
    lock = toy.git("show", f"{first['tag']}:dvc.lock").splitlines()
    names = [line.strip(" :") for line in lock if line.startswith("  ") and line[2] != " "]
    assert names[0] == "base"
    assert names[-1] == "end"
    assert sorted(names) == ["base", "end", "left", "right@a", "right@b"]


def test_nothing_of_the_worktree_is_left(toy, first):
    assert toy.git("worktree", "list").count("\n") == 0
    assert [path.name for path in (toy.root / ".remint" / "worktrees").iterdir()] == [".lock"]
    assert not (toy.root / "artifacts").exists()


def test_the_runs_log_and_record_stay(toy, first):
    folder = toy.root / ".remint" / "runs" / first["run"]
    assert "left done" in (folder / "logs" / "left.log").read_text()
    assert json.loads((folder / "run.json").read_text())["finished"] is True


def test_prefect_shows_each_stage_with_its_log_its_metrics_and_its_picture(toy, first):
    rows = dict(
        prefect(
            toy,
            "select task_run.name, task_run.state_name from task_run join flow_run "
            f"on flow_run.id = task_run.flow_run_id where flow_run.name = '{first['run']}'",
        )
    )
    assert rows.items() >= dict.fromkeys(["base", "left", "right@a", "right@b", "end", "record"], "Completed").items()
    assert prefect(toy, "select state_name from flow_run") == [("Completed",)]
    assert ("left done",) in prefect(toy, "select message from log")
    artifacts = dict(prefect(toy, "select key, data from artifact where key like 'left%'"))
    assert "psnr | 20.5" in artifacts["left-metrics"]
    assert "data:image/png;base64," in artifacts["left-square"]


def test_a_second_run_has_nothing_to_do_and_says_so_without_prefect(toy, first):
    done = toy.remint("retrain", REMINT_PREFECT_API="http://127.0.0.1:1/api")  # would fail if it were asked
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Nothing to do: all 5 stages are as {first['tag']} records them.\n"


def test_a_run_that_was_recorded_but_not_released_is_completed_without_running_anything(toy, first):
    note = toy.root / ".remint" / "runs" / first["run"] / "run.json"
    note.write_text(note.read_text().replace('"finished": true', '"finished": false'))
    done = toy.remint("retrain", "--json", REMINT_PREFECT_API="http://127.0.0.1:1/api")
    assert done.returncode == 0, done.stderr
    assert "was interrupted before its models were released: completing it" in done.stderr
    assert json.loads(done.stdout)["tag"] == first["tag"]
    assert json.loads(note.read_text())["finished"] is True


def test_two_runs_at_once_do_not_meet_and_a_failed_stage_stops_only_what_follows(toy, first):
    failing = toy.start("retrain", "--set", "behaviour.fails=left", "--set", "right=[3]")
    other = toy.start("retrain", "--json", "--set", "left.lr=0.002")
    said = failing.communicate(timeout=400)[1]
    out, err = other.communicate(timeout=400)
    assert failing.returncode == 1
    assert "left: failed with exit code 1. Its last lines:" in said
    assert "left starts" in said
    assert "Not run: end." in said
    assert "right@a: done" in said
    assert said.count("left: started") == 2  # meta.retries
    assert other.returncode == 0, err
    assert actions(json.loads(out)) == {
        "base": "current",
        "left": "ran",
        "right@a": "current",
        "right@b": "current",
        "end": "current" if "end: unchanged" in err else "ran",
    }
    tags = toy.git("tag", "--list", "run/*").splitlines()
    assert tags == [first["tag"], json.loads(out)["tag"]]  # a failed run has no tag
    assert [state for (state,) in catalogue(toy, "select state from run order by seq")].count("failed") == 1
    failed = dict(
        catalogue(toy, "select stage, action from execution join run on run.id = run_id where state = 'failed'")
    )
    assert (failed["left"], failed["right@a"]) == ("failed", "ran")


def test_a_killed_run_is_cleared_away_and_the_next_goes_on(toy, first):
    wanted = ("--set", "base=5", "--set", "right=[9]")
    process = toy.start("retrain", *wanted, "--set", "behaviour.hangs=left")
    for line in process.stderr:
        if "right@b: done" in line:
            break
    assert working(toy, "stage.py left")
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = toy.remint("retrain", "--json", *wanted)
    assert done.returncode == 0, done.stderr
    assert not working(toy, "stage.py left")
    result = json.loads(done.stdout)
    assert {stage: result for stage, result in actions(result).items() if stage != "end"} == {
        "base": "restored",
        "left": "ran",
        "right@a": "restored",
        "right@b": "restored",
    }
    states = [state for (state,) in prefect(toy, "select state_name from flow_run")]
    assert "Crashed" in states
    assert "Running" not in states


def test_an_interrupted_run_ends_its_stages_and_says_how_to_go_on(toy, first):
    process = toy.start("retrain", "--set", "behaviour.hangs=left")
    for line in process.stderr:
        if "left: started" in line:
            break
    shown = []
    while not shown and process.poll() is None:  # how far it is, on Prefect's pages
        time.sleep(0.2)
        shown = prefect(toy, "select data, description, task_run_id from artifact where key = 'left-progress'")
    ((share, words, task),) = shown
    assert (float(share), words) == (50.0, "step 1/2 (50 %)  1 s left")
    assert prefect(toy, f"select name from task_run where id = '{task}'") == [("left",)]
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=200)[1]
    assert process.returncode == 130
    assert "`remint retrain` goes on from there" in rest
    assert not working(toy, "stage.py left")
    assert toy.git("worktree", "list").count("\n") == 0
    last = "from execution join run on run.id = run_id where stage = 'left' and seq = (select max(seq) from run)"
    ((action, seconds),) = catalogue(toy, f"select action, machine_seconds {last}")
    assert action == "stopped"
    assert seconds > 0  # what it cost is not forgotten
