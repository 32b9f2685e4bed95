"""A folder of photographs in a run: whatever it is called and holds, every file is in use or named."""

import contextlib
import json
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest
import yaml
from PIL import Image

from data.core import manifest
from data.core.params import UserError
from data.photos import listing
from flows.arrivals import run_inputs
from flows.pipeline.job import Job
from flows.retrain import job
from flows.stage import process
from tests import arriving

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the stage `photos` of this one."""
    root = tmp_path / "project"
    arriving.project(root, "")
    plain = shutil.ignore_patterns("__pycache__", "*.arrivals")
    shutil.copytree(ROOT / "data", root / "data", dirs_exist_ok=True, ignore=plain)
    shutil.copy(ROOT / "requirements.lock", root)
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["photos"]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"photos": stage}}))
    arriving.git(root, "add", "-A")
    arriving.git(root, "commit", "-q", "-m", "Have the stage")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs, and what would hang or break who reads all files alike; its name is a trap for a shell."""
    made = tmp_path / 'it\'s "my" `touch A` $(touch B) ${seed} #\n*'
    (made / "inner").mkdir(parents=True)
    for number, name in enumerate(("a.jpg", "inner/b.jpg", "-c.jpg")):
        (made / name).write_bytes(arriving.photograph(number))
    Image.new("RGB", (64, 64), (90, 140, 220)).save(made / "flat.png")
    (made / "nowhere.png").symlink_to("gone.png")
    (made / "itself.png").symlink_to("itself.png")
    (made / "device.png").symlink_to("/dev/zero")
    os.mkfifo(made / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(made):
        listening.bind("socket.png")
    Path(os.fsdecode(os.fsencode(made) + b"/\xff.png")).write_bytes(b"no picture")
    return made


BAD = {"\\udcff.png", "device.png", "itself.png", "nowhere.png", "pipe.png", "socket.png"}


def ran(ready: Job) -> list[str]:
    said: list[str] = []
    where = (ready.run.workspace, ready.environment, ready.folder / "photos.log")
    process.run("photos", *where, lambda text, _: said.append(text), threading.Event())
    return said


def test_a_run_reads_what_it_listed_and_names_the_rest(project, folder, monkeypatch):
    monkeypatch.setenv("REMINT_PHOTOS", str(folder))
    with job.prepared(project, assignments=["photos.max_bad_share=0.6"]) as ready:
        assert ready.changes["photos.source"] == "data/own.listing"
        assert [step.action for step in ready.plan.steps] == ["run"]
        said = ran(ready)
        out = ready.run.workspace / "artifacts" / "photos"
        aside = {one["name"] for one in json.loads((out / "quarantine.json").read_text())}
        assert aside == BAD | {"flat.png"}
        assert set(manifest.read(out)["source"].to_pylist()) == {"a.jpg", "inner/b.jpg", "-c.jpg"}
        assert "photos: set aside: 'pipe.png' is not a regular file" in said
        assert not [path for path in ready.run.workspace.rglob("*") if path.name in ("A", "B")]
        committed = arriving.git(project, "show", f"{ready.run.commit}:data/own.listing")
        assert json.loads(committed.splitlines()[0]) == {"folder": str(folder)}


def test_too_many_bad_files_are_all_named_in_the_words_that_stay(project, folder, monkeypatch):
    monkeypatch.setenv("REMINT_PHOTOS", str(folder))
    with job.prepared(project) as ready, pytest.raises(process.StageFailed) as error:
        ran(ready)
    assert not error.value.retry
    words = error.value.log.read_text()
    assert "6 of 10 files cannot be used" in words
    assert all(f"photos: set aside: {name!r} " in words for name in BAD)


def test_a_folder_in_the_commit_is_listed_as_it_lies_there(project):
    with job.prepared(project) as ready:
        where, entries = listing.read(ready.run.workspace / "data" / "own.listing")
        assert where.resolve() == ready.run.workspace / "own"
        assert sorted(entries) == ["1000.jpg", "1001.jpg"]
        ran(ready)


def test_a_look_at_a_folder_reads_only_what_changed_there(project, folder, tmp_path, monkeypatch):
    settings = arriving.Settings(root=project, photos=folder)
    read: list[str] = []
    sha256 = run_inputs.digests.sha256
    monkeypatch.setattr(run_inputs.digests, "sha256", lambda path: read.append(path.name) or sha256(path))
    run_inputs.listed(project, settings, {run_inputs.SOURCE: "data/own.listing"})
    first = (project / "data" / "own.listing").read_text()
    assert len(read) == 5
    run_inputs.listed(project, settings, {run_inputs.SOURCE: "data/own.listing"})
    assert (len(read), (project / "data" / "own.listing").read_text()) == (5, first)
    (folder / "a.jpg").write_bytes(arriving.photograph(7))
    run_inputs.listed(project, settings, {run_inputs.SOURCE: "data/own.listing"})
    assert read[5:] == ["a.jpg"]
    assert (project / "data" / "own.listing").read_text() != first


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "photos.source"),
        ("/nonexistent", "photos.source: /nonexistent does not exist"),
        ("/dev/null", "photos.source: /dev/null is neither a folder"),
        ("s3://bucket/photographs", "photos.source: s3://bucket/photographs does not exist"),
        ("data/validate/../nothing", "does not exist"),
    ],
)
def test_a_source_that_is_none_is_named_before_anything_runs(project, source, message):
    with (
        pytest.raises(UserError, match=message) as error,
        job.prepared(project, assignments=[f"photos.source={source}"]),
    ):
        pass
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there_or_empty_is_named(project, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for name, message in (("gone", "REMINT_PHOTOS=.*gone: there is no such folder"), ("empty", "holds no files")):
        monkeypatch.setenv("REMINT_PHOTOS", str(tmp_path / name))
        with pytest.raises(UserError, match=message), job.prepared(project):
            pass
