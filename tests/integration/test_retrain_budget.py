"""A run with a budget: what it ends, what it does not start, what it says, and what `remint cost` says afterwards."""

import json
import re
import sqlite3
from contextlib import closing

import pytest

from flows import settings
from flows.server import connect

pytestmark = [pytest.mark.integration, pytest.mark.slow]
HANGS = ("--set", "left.lr=0.5", "--set", "behaviour.hangs=left")


@pytest.fixture(scope="module")
def toy(make_toy, tmp_path_factory):
    """The repository after a first run, with its local Prefect server up."""
    made = make_toy(tmp_path_factory.mktemp("toy"))
    chosen = settings.load(made.root)
    with connect.borrowed(chosen, settings.child_environment(chosen)):
        done = made.remint("retrain", "--json")
        assert done.returncode == 0, done.stderr
        yield made


@pytest.fixture(scope="module")
def limit(toy):
    """Seconds in which `left` is expected to be done."""
    return round(executions(toy)["left"]["machine_seconds"] + 4)


@pytest.fixture(scope="module")
def stopped(toy, limit):
    """A run whose budget ends while `left` works."""
    return toy.remint("retrain", *HANGS, "--budget", f"{limit}s")


def executions(toy):
    """The last run's, by stage."""
    with closing(sqlite3.connect(toy.root / ".remint" / "catalogue.db")) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute(
            "select execution.*, state from execution join run on run.id = run_id "
            "where seq = (select max(seq) from run)"
        ).fetchall()
    return {row["stage"]: row for row in rows}


def test_each_stage_of_a_run_has_what_it_cost(toy):
    found = executions(toy)
    assert set(found) == {"base", "left", "right@a", "right@b", "end"}
    for row in found.values():
        assert 0 < row["cpu_seconds"] < 60
        assert 0 < row["machine_seconds"] <= row["seconds"] + 0.1
        assert 10e6 < row["peak_memory"] < 10e9
        assert (row["gpu_seconds"], row["bytes_in"], row["bytes_out"]) == (0, 0, 0)


def test_a_plan_says_what_is_likely_and_what_nobody_knows(toy):
    cost = executions(toy)["left"]["machine_seconds"]
    done = toy.remint("retrain", "--plan", "--json", "--set", "left.lr=0.5")
    plan = json.loads(done.stdout)
    known = {step["stage"]: step["estimate"] for step in plan["plan"]}
    assert known["left"]["seconds"] == cost
    assert known["base"] is None  # nothing to run
    assert plan["estimate"]["seconds"] == pytest.approx(cost + known["end"]["seconds"])
    lines = toy.remint("retrain", "--plan", "--set", "left.lr=0.5").stdout.splitlines()
    assert lines[0].split() == ["stage", "action", "likely", "why"]
    assert lines[-2].startswith("in all")
    assert lines[-1].startswith("likely: what the stage took in ")


def test_a_stage_that_works_is_ended_before_the_budget_is_exceeded(toy, stopped, limit):
    assert stopped.returncode == 1
    assert "left: stopped, to go on in" in stopped.stderr
    said = stopped.stderr[stopped.stderr.index("The budget ends this run") :].splitlines()
    assert said[0].startswith("The budget ends this run: spent ")
    assert said[0].endswith(f" of {limit} s of machines.")
    assert said[1] == "left was ended while it worked; it goes on from its checkpoint, if it has one."
    assert said[-2:] == ["Not run: end.", "What finished is kept: `remint retrain` goes on from there."]
    row = executions(toy)["left"]
    assert (row["action"], row["state"], row["input_digest"]) == ("stopped", "failed", "")
    assert 0.9 * limit < row["machine_seconds"] < limit + 3  # seconds in which a busy machine ends DVC
    assert stopped.stderr.count("left: started") == 1  # a retry would be over the budget


@pytest.mark.soak
def test_a_stage_that_is_likely_to_take_more_is_not_started_and_the_next_run_goes_on(toy, stopped):
    before = toy.remint("retrain", "--set", "base=2", "--budget", "0.1s")  # no process is so fast
    assert before.returncode == 1
    assert "base was not started: it is likely to take " in before.stderr
    assert re.search(r"after 0 s of [\d.]+ s of machines\.", before.stderr)
    assert "Not run: base, left, right@a, right@b, end." in before.stderr
    assert "base: started" not in before.stderr
    done = toy.remint("retrain", "--json", "--set", "left.lr=0.5", "--budget", "10m, 1h cpu, 1m gpu")
    assert done.returncode == 0, done.stderr
    assert {one["stage"]: one["action"] for one in json.loads(done.stdout)["stages"]}["left"] == "ran"


def test_cost_has_the_newest_run_and_the_last_ones_the_ended_run_too(toy, stopped):
    values = json.loads(toy.remint("cost", "--json").stdout)["runs"]
    ended = next(run for run in values if run["state"] == "failed" and len(run["stages"]) > 1)
    left = next(stage for stage in ended["stages"] if stage["stage"] == "left")
    assert left["action"] == "stopped"
    assert ended["spent"]["seconds"] == pytest.approx(left["spent"]["seconds"], abs=1)
    assert ended["saved"]["seconds"] > 0  # base and the others had not changed
    one = toy.remint("cost", f"run/{ended['run']}", REMINT_PRICE_CPU="3600")
    lines = one.stdout.splitlines()
    assert lines[0].startswith(f"run {ended['run']}: failed, retrain, took ")
    assert lines[1].split() == ["stage", "machine", "CPU", "memory", "price", "saved"]
    assert "the last" in toy.remint("cost").stdout
    wrong = toy.remint("cost", f"{ended['run']}x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert f"did you mean '{ended['run']}'?" in wrong.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--budget", "2 hours"), "--budget '2 hours': '2 hours' is no amount of time; write '2h', '1h30m'"),
        (("--budget", "2h tpu"), "of what is 'tpu'; did you mean 'gpu'?"),
    ],
)
def test_a_budget_that_says_nothing_is_named_in_one_line(toy, words, says):
    done = toy.remint("retrain", *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_price_that_is_no_number_is_named(toy):
    done = toy.remint("cost", REMINT_PRICE_GPU="-1")
    assert done.returncode == 2
    assert "REMINT_PRICE_GPU='-1'" in done.stderr
