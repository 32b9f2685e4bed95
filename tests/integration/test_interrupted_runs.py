"""Runs that were killed between their tag and their release: completed by whatever runs next, the oldest first."""

import shutil

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from flows.catalogue import schema
from flows.cli import main
from flows.doctor import checks
from flows.pipeline import run_record
from flows.release import of_run, pointers
from flows.release.outcome import RunOutcome
from flows.retrain import finalise, job, launch
from tests.released import finished, places_agree, train

pytestmark = pytest.mark.integration


@pytest.fixture
def run(monkeypatch):
    """What the stages of a job would be started with; none is."""
    started = []

    def pretend(ready, shown, dead):
        started.append((ready, [one.run.id for one in run_record.unfinished(ready.settings)]))
        return RunOutcome(ready.run)

    monkeypatch.setattr(launch, "run", pretend)
    return started


def test_a_run_with_other_parameters_completes_first_what_was_interrupted(places, run):
    left = [train(places.settings, seed).id for seed in (3, 4)]
    assert [one.run.id for one in run_record.unfinished(places.settings)] == left
    said = CliRunner().invoke(main, ["retrain", "--plan"]).stderr
    assert all(f"run {one} was interrupted before its models were released" in said for one in left)
    with job.prepared(places.settings.root, assignments=["seed=77"]) as ready:
        outcome = launch.bring_up_to_date(ready, lambda text: None)
        assert [(one.run.id, unfinished) for one, unfinished in run] == [(ready.run.id, [])]
        assert outcome.run.id == ready.run.id
    log = pointers.log(places.bucket, "images")
    assert [one.run for one in log[1:]] == left
    assert places_agree(places, "images") == 3


def test_what_cannot_be_completed_is_said_and_stops_no_other_run(places, run):
    left = train(places.settings, 3)
    shutil.rmtree(places.settings.root / ".dvc/cache/files")
    said = []
    with job.prepared(places.settings.root, assignments=["seed=77"]) as ready:
        assert launch.bring_up_to_date(ready, said.append) is not None
    assert [unfinished for _, unfinished in run] == [[left.id]]
    assert f"run {left.id} was interrupted and cannot be completed now: " in said[0]
    assert "not in DVC's cache here" in said[0]
    assert "remint doctor --repair" in said[0]


def test_an_older_run_is_not_judged_after_a_newer_one(places):
    """It is registered, so that nothing is lost, and a person may still release it."""
    older = train(places.settings, 3)
    newer = train(places.settings, 4)
    finished(places, newer)
    results = list(checks.examine(places, repair=True))
    assert [(one.finding.subject, one.repaired) for one in results] == [(older.id, True)]
    assert run_record.unfinished(places.settings) == []
    for family in ("images", "depth"):
        assert pointers.newest(places.bucket, family).run == newer.id
    with places.catalogue.read() as session:
        judged = set(session.scalars(select(schema.Decision.run_id)))
        made = set(session.scalars(select(schema.ModelVersion.run_id)))
    assert (older.id in made, older.id in judged) == (True, False)
    assert list(checks.examine(places)) == []


def test_only_a_family_with_a_newer_verdict_is_left_out_and_the_newer_run_is_named(places):
    older = train(places.settings, 3)
    newer = train(places.settings, 4)
    of_run.promote_run(places, "images", newer.id, "Ada", "")
    noted = run_record.load(places.settings, older.id)
    outcomes = {one.family: one for one in finalise.complete(places, noted)[1].outcomes}
    assert {name: one.state for name, one in outcomes.items()} == {"images": "lost", "depth": "released"}
    assert f"run {newer.id} was since" in str(outcomes["images"])
    assert f"remint promote images {older.id}" in str(outcomes["images"])
    assert finalise.complete(places, noted) is None  # whoever waited for it finds it done


@pytest.mark.parametrize("damage", [b"", b'{"run": {', b"[]", b"\xff"])
def test_a_damaged_note_is_named_by_every_command_that_needs_it_and_stops_no_other_check(places, damage):
    left = train(places.settings, 3)
    path = places.settings.runs / left.id / "run.json"
    path.write_bytes(damage)
    places.mlflow().delete_registered_model_alias("tokenizer", "production")
    lines = [str(one) for one in checks.examine(places, repair=True)]
    assert len(lines) == 2
    assert lines[0].startswith("repaired  MLflow: tokenizer@production")
    assert lines[1].startswith(f"wrong     run: {left.id} is noted in a file that is damaged ({path} is damaged (")
    for words in (["doctor"], ["promote", "images"], ["retrain", "--plan"]):
        done = CliRunner().invoke(main, words)
        said = done.stdout + done.stderr
        assert (done.exit_code in (1, 2), f"rm '{path}', then: remint doctor" in said, "Traceback" in said) == (
            True, True, False,
        )  # fmt: skip
    path.unlink()
    assert list(checks.examine(places)) == []
    assert of_run.promote_run(places, "images", left.id, "Ada", "").state == "released"
