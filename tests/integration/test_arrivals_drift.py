"""What arrived is held against what production was made from, and starts a retraining once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.arrivals import baseline, watch
from flows.arrivals.run_inputs import LIST
from flows.arrivals.thresholds import Thresholds
from flows.catalogue import database
from flows.catalogue.schema import Entry
from flows.release import notify
from flows.retrain import job
from flows.schedules import started
from flows.settings import Settings
from tests.arriving import deliver, git, photograph, project, release

pytestmark = pytest.mark.integration


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "inbox").mkdir()
    return project(tmp_path / "project", str(tmp_path / "inbox"))


def journal(settings: Settings, kind: str) -> list[dict]:
    catalogue = database.open(settings)
    try:
        with catalogue.read() as session:
            return [json.loads(entry.body) for entry in session.query(Entry).filter_by(kind=kind).order_by(Entry.seq)]
    finally:
        catalogue.close()


def arrive(settings: Settings, numbers: range, dark: float = 1.0) -> None:
    deliver(str(settings.incoming), {f"{number}.jpg": photograph(number, dark=dark) for number in numbers})


def test_enough_photographs_start_a_retraining_once(settings: Settings) -> None:
    arrive(settings, range(3))
    few = watch.look(settings, Thresholds(at_least=5))
    assert (few.waiting, few.total, few.decision) == (3, 5, None)
    assert few.not_compared == "no depth model is in production yet"
    arrive(settings, range(3, 6))
    many = watch.look(settings, Thresholds(at_least=5))
    assert many.decision is not None
    assert (many.decision.trigger, many.decision.why) == ("data", "6 new photographs, 5 are enough")
    assert watch.look(settings, Thresholds(at_least=5)).decision == many.decision  # until it was started
    watch.record_trigger(settings, many, "run", "done")
    after = watch.look(settings, Thresholds(at_least=5))
    assert (after.waiting, after.decision) == (0, None)
    (entry,) = journal(settings, watch.TRIGGER)
    assert {"trigger": "data", "photographs": 8, "run": "run", "state": "done"}.items() <= entry.items()
    assert [one["photographs"] for one in journal(settings, watch.ARRIVAL)] == [0, 3, 3]
    arrive(settings, range(6, 8))
    assert watch.look(settings, Thresholds(at_least=5)).waiting == 2


def test_photographs_unlike_those_of_production_are_drift(settings: Settings) -> None:
    release(settings)
    arrive(settings, range(30))
    same = watch.look(settings, Thresholds())
    assert same.against == "depth #1"
    assert set(same.drift) == {"brightness", "contrast", "confusion"}
    assert same.decision is None, same.drift
    arrive(settings, range(100, 130), dark=0.25)
    other = watch.look(settings, Thresholds())
    assert other.drift["brightness"] > 0.25
    assert other.decision is not None
    assert other.decision.trigger == "drift"
    assert "brightness of 60 new photographs against depth #1" in other.decision.why
    assert watch.look(settings, Thresholds(at_least=1, shift=99, confusion=1.0)).decision.trigger == "data"  # type: ignore[union-attr]


def test_a_student_that_is_confused_is_drift(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    release(settings)
    arrive(settings, range(25))
    assert watch.look(settings, Thresholds()).drift["confusion"] < 0.65
    # as if the net could make nothing of what arrives now; three photographs were held out, so that chance is a lot
    looks = baseline.Production.look
    monkeypatch.setattr(baseline.Production, "look", lambda self, tiles: [9 + value for value in looks(self, tiles)])
    arrive(settings, range(30, 130))
    seen = watch.look(settings, Thresholds(at_least=1000, shift=99))
    assert seen.decision is not None
    assert "confusion of 125 new photographs against depth #1" in seen.decision.why


def test_few_photographs_are_no_drift(settings: Settings) -> None:
    release(settings)
    arrive(settings, range(10), dark=0.25)
    seen = watch.look(settings, Thresholds())
    assert seen.drift["brightness"] > 0.25
    assert seen.decision is None


def test_a_production_whose_photographs_are_gone_is_not_compared(settings: Settings) -> None:
    import shutil

    release(settings)
    shutil.rmtree(settings.root / ".dvc" / "cache")
    arrive(settings, range(25))
    seen = watch.look(settings, Thresholds())
    assert seen.drift == {}
    assert "neither in DVC's cache nor in its remote" in seen.not_compared


def test_impossible_thresholds_are_refused() -> None:
    for wrong in ({"at_least": 0}, {"shift": 0.0}, {"confusion": 0.5}, {"confusion": 1.1}):
        with pytest.raises(UserError, match="at_least must be 1 or more"):
            Thresholds(**wrong)  # type: ignore[arg-type]


def test_a_run_is_given_the_list_in_its_commit(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    arrive(settings, range(3))
    watch.look(settings, Thresholds())
    monkeypatch.setenv("REMINT_INCOMING", str(settings.incoming))
    with job.prepared(settings.root, trigger="data") as ready:
        assert ready.changes == {"photos.source": "data/incoming.arrivals", "photos.per_photo": 16}
        listed = (ready.run.workspace / LIST).read_text()
        assert git(settings.root, "show", f"{ready.run.commit}:{LIST}") + "\n" == listed
        assert len(listed.splitlines()) == 1 + 2 + 3
        assert ready.run.trigger == "data"
    assert not (settings.root / LIST).exists()  # the user's checkout is not touched
    monkeypatch.setenv("REMINT_PHOTOS", str(settings.root / "own"))
    with pytest.raises(UserError, match="REMINT_PHOTOS and REMINT_INCOMING both"), job.prepared(settings.root):
        pass


@pytest.mark.parametrize("state", ["done", "failed"])
def test_what_was_started_is_written_down_and_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    release(settings)
    arrive(settings, range(25), dark=0.25)
    seen = watch.look(settings, Thresholds())
    told: list[notify.Notice] = []
    monkeypatch.setattr(notify, "tell", lambda settings, notices, say: told.extend(notices))

    def retrain(*arguments: object) -> None:
        if state == "failed":
            raise started.NotRetrained("run x: left failed")

    monkeypatch.setattr(started, "retrain", retrain)
    if state == "failed":
        with pytest.raises(started.NotRetrained):
            started.follow(settings, seen, print)
    else:
        assert started.words(started.follow(settings, seen, print)).startswith("nothing to do")
    (entry,) = journal(settings, watch.TRIGGER)
    assert (entry["trigger"], entry["state"]) == ("drift", state)
    assert [(one.event, one.trigger) for one in told] == [("drift", "drift")]
    assert watch.look(settings, Thresholds()).decision is None  # not again every hour


def test_the_command_says_what_it_found_and_starts_nothing_unasked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from flows.cli import main

    monkeypatch.chdir(settings.root)
    monkeypatch.setenv("REMINT_INCOMING", str(settings.incoming))
    arrive(settings, range(3))
    deliver(str(settings.incoming), {"odd\nname.txt": b"no picture"})
    run = CliRunner()
    done = run.invoke(main, ["watch", "--no-retrain", "--at-least", "3"])
    assert done.exit_code == 0
    assert "3 new photographs, 0 known, 1 set aside" in done.stdout
    assert "set aside: 'odd\\nname.txt' is not a JPEG" in done.stdout
    assert "retraining (data): 3 new photographs, 3 are enough" in done.stdout
    found = json.loads(run.invoke(main, ["watch", "--json", "--no-retrain"]).stdout)
    assert (found["arrived"], found["known"], found["waiting"]) == (0, 4, 3)
    for wrong, said in ((["--shift", "0"], "shift above 0"), (["--at-least", "x"], "not a valid integer")):
        refused = run.invoke(main, ["watch", *wrong])
        assert refused.exit_code == 2
        assert said in refused.stderr
    monkeypatch.setenv("REMINT_INCOMING", "")
    assert "REMINT_INCOMING names no place to watch" in run.invoke(main, ["watch"]).stderr
