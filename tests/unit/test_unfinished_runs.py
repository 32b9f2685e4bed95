"""Which runs are taken for interrupted."""

import fcntl
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows.pipeline import run_record
from flows.pipeline.run import RunInfo
from flows.repository import git, tag
from flows.settings import Settings

RUN = RunInfo("r1", "run/r1", "c" * 40, "b" * 40, Path("gone"), False, "p", datetime(2026, 1, 1, tzinfo=UTC), "retrain")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(root=tmp_path)
    git(tmp_path, "init", "--quiet")
    for identifier in ("r2", "r1"):
        git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", identifier)
        tag(tmp_path, f"run/{identifier}", "Run", "HEAD")
        head = git(tmp_path, "rev-parse", "HEAD")
        run_record.save(made, replace(RUN, id=identifier, tag=f"run/{identifier}", commit=head), [], finished=False)
    return made


def unfinished(settings: Settings) -> list[str]:
    return [one.run.id for one in run_record.unfinished(settings)]


def test_runs_that_died_before_their_release_are_unfinished_the_oldest_first(settings: Settings) -> None:
    assert unfinished(settings) == ["r1", "r2"]


def test_a_run_that_another_process_is_just_finishing_is_left_to_it(settings: Settings) -> None:
    settings.worktrees.mkdir(parents=True)
    with (settings.worktrees / "r1.pid").open("w") as mark:
        fcntl.flock(mark, fcntl.LOCK_EX)
        assert unfinished(settings) == ["r2"]
    assert unfinished(settings) == ["r1", "r2"]


def test_a_run_that_ended_or_never_got_its_tag_is_not_unfinished(settings: Settings) -> None:
    first, second = run_record.unfinished(settings)
    run_record.save(settings, first.run, [], finished=True)
    git(settings.root, "tag", "--delete", second.run.tag)
    assert unfinished(settings) == []
