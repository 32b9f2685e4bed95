"""A home that Remint made before `flows` had rooms: opened, judged sound, listed, pulled, rolled back and promoted."""

import contextlib
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows import cli
from flows.doctor import checks
from flows.release import stores
from flows.release.stores import Stores
from flows.settings import Settings
from tests import released

HOME = Path(__file__).parents[1] / "homes" / "before_rooms.tar.xz"  # two runs, two releases of each family, a rollback
RUNS = ["20260101T000001Z-", "20260101T000002Z-"]
pytestmark = pytest.mark.integration


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The home as somebody finds it after an upgrade, at another path than it was made at."""
    with tarfile.open(HOME) as packed:
        packed.extractall(tmp_path, filter="data")
    monkeypatch.setattr("flows.release.stores.who", lambda settings: "Ann <ann@example.org>")
    with contextlib.chdir(tmp_path / "project"):
        yield tmp_path / "project"


@pytest.fixture
def places(home: Path) -> Iterator[Stores]:
    chosen = Settings(root=home)
    os.environ["MLFLOW_TRACKING_URI"] = chosen.mlflow_uri
    with stores.opened(chosen) as opened:
        yield opened


def said(*words: str) -> str:
    done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_doctor_finds_nothing_wrong_however_deep_it_looks(places: Stores) -> None:
    assert [str(one) for one in checks.examine(places, deep=True)] == []


def test_its_releases_and_what_they_were_made_from_are_told(home: Path) -> None:
    log = json.loads(said("history", "images", "--json"))
    assert [(one["number"], one["restores"]) for one in log] == [(1, None), (2, None), (3, 1)]
    assert "maskgit v2 -> v1" in said("history", "images")
    assert "tokenizer" in said("lineage", "maskgit@production")
    assert "images" in said("status")
    compared = json.loads(said("diff", "images", "1", "2", "--json"))
    assert [compared[side]["number"] for side in ("before", "after")] == [1, 2]


def test_a_release_is_pulled_verified_and_an_earlier_one_put_back(places: Stores, tmp_path: Path) -> None:
    pulled = json.loads(said("pull", "images@2", str(tmp_path / "there"), "--json"))
    assert [one["version"] for one in pulled["models"]] == [2, 2]
    assert (tmp_path / "there" / "tokenizer" / "model.safetensors").stat().st_size > 0
    said("rollback", "images", "--to", "2", "--why", "as before")
    assert released.places_agree(places, "images") == 4
    assert [str(one) for one in checks.examine(places, deep=True)] == []


def test_a_run_of_it_is_judged_and_promoted_by_the_code_of_now(places: Stores) -> None:
    runs = sorted(path.name for path in (places.settings.home / "runs").iterdir())
    assert [name[:17] for name in runs] == RUNS
    said("promote", "images", runs[1], "--why", "again")
    assert released.places_agree(places, "images") == 4
    assert [str(one) for one in checks.examine(places)] == []
