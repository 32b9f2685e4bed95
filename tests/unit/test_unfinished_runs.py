"""Which runs are taken for interrupted."""

import fcntl
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows import finish
from flows.run import RunInfo
from flows.settings import Settings

RUN = RunInfo("r1", "run/r1", "c" * 40, "b" * 40, Path("gone"), False, "p", datetime(2026, 1, 1, tzinfo=UTC), "retrain")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(root=tmp_path)
    finish.note(made, RUN, [], finished=False)
    return made


def test_a_run_that_died_before_its_release_is_unfinished(settings: Settings) -> None:
    found = finish.unfinished(settings, RUN.tag)
    assert found is not None
    assert found.run == RUN


def test_a_run_that_another_process_is_just_finishing_is_left_to_it(settings: Settings) -> None:
    settings.worktrees.mkdir(parents=True)
    with (settings.worktrees / "r1.pid").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        assert finish.unfinished(settings, RUN.tag) is None
    assert finish.unfinished(settings, RUN.tag) is not None


def test_a_run_that_ended_or_ran_elsewhere_is_not_unfinished(settings: Settings) -> None:
    assert finish.unfinished(settings, "run/r2") is None
    finish.note(settings, RUN, [], finished=True)
    assert finish.unfinished(settings, RUN.tag) is None
