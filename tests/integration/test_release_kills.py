"""Promote, roll back and the end of a run, killed anywhere and raced: always exactly the old or the new release."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.release import of_run, stores
from tests import released

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
OLD = {
    "images": {"maskgit": 1, "tokenizer": 1, "number": 1},
    "depth": {"depth-small": 1, "depth-teacher": 1, "number": 1},
}
PROMOTED = {**OLD, "images": {"maskgit": 2, "tokenizer": 2, "number": 2}}
TAKEN_BACK = {**OLD, "images": {"maskgit": 1, "tokenizer": 1, "number": 3}}
FINISHED = {**PROMOTED, "depth": {"depth-small": 2, "depth-teacher": 2, "number": 2}}


def driven(template, folder, *words):
    """What tests/integration/killed_release.py prints, line by line."""
    script = Path(__file__).with_name("killed_release.py")
    command = [sys.executable, "-W", "ignore", script, template, folder, *map(str, words)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return [json.loads(line) for line in out.splitlines()]


def check(lines, old, new):
    """Every place says the same in every case, and it is one of the two releases."""
    for line in lines:
        assert line["left"] == line["wrong"] == [], line
        assert line["stands"] in (old, new), line
    assert lines[0]["stands"] == new  # nobody killed it


@pytest.fixture(scope="module")
def promoted(two_runs, tmp_path_factory):
    """The project with the second run released too."""
    chosen = released.copied(two_runs, tmp_path_factory.mktemp("promoted") / "project")
    with stores.opened(chosen) as places:
        assert of_run.promote_run(places, "images", None, "me", "").state == "released"
    return chosen.root


def test_a_promotion_killed_anywhere_leaves_the_old_or_the_new_release(two_runs, tmp_path):
    lines = driven(two_runs, tmp_path, "promote", "boundaries", 3)
    assert [line["killed"] for line in lines] == [False, True, True, True]
    check(lines, OLD, PROMOTED)


def test_a_rollback_killed_anywhere_leaves_the_old_or_the_new_release(promoted, tmp_path):
    lines = driven(promoted, tmp_path, "rollback", "boundaries", 3)
    assert [line["killed"] for line in lines] == [False, True, True, True]
    check(lines, PROMOTED, TAKEN_BACK)


def test_of_eight_promotions_at_once_one_wins_and_seven_say_who(two_runs, tmp_path):
    state, *outcomes = driven(two_runs, tmp_path, "race", "processes", 8)
    (won,) = [one for one in outcomes if one["state"] == "released"]
    lost = [one for one in outcomes if one["state"] == "lost"]
    assert len(lost) == 7
    assert won["release"]["who"] == f"person {won['number']}"
    for one in lost:
        assert f"images #2 was made by person {won['number']} at " in one["reason"]
        assert f"from run {won['release']['run']}" in one["reason"]
    assert state["left"] == state["wrong"] == []
    assert state["stands"] == PROMOTED


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["boundaries", "instants"])
@pytest.mark.parametrize("operation", ["promote", "rollback", "finish"])
def test_wherever_it_is_killed(two_runs, promoted, tmp_path, operation, kind):
    """At each boundary there is, and at 50 random instants."""
    template = promoted if operation == "rollback" else two_runs
    old, new = {
        "promote": (OLD, PROMOTED),
        "rollback": (PROMOTED, TAKEN_BACK),
        "finish": (FINISHED, FINISHED),  # the doctor finishes what was recorded
    }[operation]
    lines = driven(template, tmp_path, operation, kind, 0 if kind == "boundaries" else 50)
    check(lines, old, new)
    if kind == "boundaries":
        assert all(line["killed"] for line in lines[1:])
        assert old in [line["stands"] for line in lines]
