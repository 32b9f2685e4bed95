"""A damaged object in DVC's cache: the plan names it, nothing is made, judged or released of it, and it is mended."""

import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.doctor import stored
from flows.pipeline import integrity, plan
from flows.pipeline.integrity import Objects
from flows.pipeline.run import RunInfo
from flows.pipeline.store import Store
from flows.release import of_run, recorded
from flows.retrain import finalise
from flows.settings import Settings
from tests.released import ARTIFACTS

pytestmark = pytest.mark.integration


@pytest.fixture
def store(places):
    opened = Store(places.settings.root)
    yield opened
    opened.close()


def of(store: Store, file: str) -> Path:
    """Where the cache keeps a file of the newest run, or with a / the list of a folder's files."""
    found = {}
    for stage in store.stages:
        for out, oid in store.recorded(stage).outs.items():
            found |= {f"{out}/": oid} | {f"{out}/{name}": md5 for name, md5 in store.cache.objects.members(oid).items()}
    return store.cache.objects.path(found[file])


def flip(path: Path, unseen: bool = False) -> None:
    """One bit; DVC, which takes the mode for a proof, does not see it. `unseen`: nor does the file's time of change."""
    raw, before = path.read_bytes(), path.stat()
    path.chmod(0o644)
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    path.chmod(0o444)
    if unseen:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


FILES = ["artifacts/scenes/scenes-00000.tar", f"{ARTIFACTS['tokenizer']}/model.safetensors", "artifacts/scenes/"]


@pytest.mark.parametrize("file", FILES)
def test_a_plan_names_what_is_damaged_and_runs_its_stage(store, file):
    assert plan.make(store.stages, store).empty
    path = of(store, file)
    md5 = path.parent.name + path.name.removesuffix(".dir")
    flip(path)
    steps = {step.stage: step for step in plan.make(store.stages, store).steps}
    step = steps["scenes" if "scenes" in file else "tokenizer"]
    assert step.action == "run"
    assert step.why().startswith(f"{file} ({path}) is damaged: expected md5 {md5}, found ")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("unseen", [True, False])
def test_what_a_stage_is_about_to_read_is_read_first_and_made_again(store, file, unseen):
    assert plan.make(store.stages, store).empty
    (store.root / "params.yaml").write_text("seed: 9\n")
    planned = plan.make(store.stages, store)
    assert (planned.action("scenes"), planned.action("depth-small")) == ("current", "run")
    path = of(store, file)
    flip(path, unseen)
    cast_out = store.cast_out(store.stages, planned)
    if unseen and "tokenizer" in file:  # no stage reads it; who registers it does
        assert cast_out == []
        return
    assert [(one.file, one.path) for one in cast_out] == [(file, path)]
    assert not path.exists()
    again = plan.make(store.stages, store)
    assert again.action("scenes" if "scenes" in file else "tokenizer") == "run"


@pytest.mark.parametrize("unseen", [True, False])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", ""])
def test_a_damaged_model_is_not_registered_nor_released(places, store, name, unseen):
    path = of(store, f"{ARTIFACTS['tokenizer']}/{name}")
    flip(path, unseen)
    with pytest.raises(UserError, match=r"artifacts/tokenizer/model.*remint doctor --repair") as error:
        of_run.promote_run(places, "images", None, "me", "")
    assert str(path) in str(error.value)
    assert of_run.promote_run(places, "depth", None, "me", "").state == "released"  # the other family is whole
    assert not plan.make(store.stages, store).empty  # it is known now, whatever its time of change


def test_a_part_of_a_model_that_is_gone_is_named(places, store):
    of(store, f"{ARTIFACTS['maskgit']}/config.json").unlink()
    with pytest.raises(UserError, match=f"{ARTIFACTS['maskgit']} not in DVC's cache here"):
        of_run.promote_run(places, "images", None, "me", "")


@pytest.mark.parametrize("name", ["metrics.json", "per_sample.parquet"])
def test_a_damaged_evaluation_is_not_judged(tmp_path, name):
    """As the real graph has it: files that DVC caches, each an output of its own."""
    model, judged = tmp_path / ARTIFACTS["tokenizer"], tmp_path / "artifacts/evaluate/tokenizer"
    outs = []
    for folder, files in ((model, ["config.json"]), (judged, ["metrics.json", "per_sample.parquet"])):
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_text(file)
            md5 = hashlib.md5(file.encode()).hexdigest()
            outs.append({"path": (folder / file).relative_to(tmp_path).as_posix(), "md5": md5})
    (tmp_path / "dvc.yaml").write_text(json.dumps({"artifacts": {"tokenizer": {"path": ARTIFACTS["tokenizer"]}}}))
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": {"all": {"cmd": "true", "outs": outs}}}))
    started = datetime(2026, 1, 1, tzinfo=UTC)
    ran = RunInfo("r", "run/r", "c", "b", tmp_path, False, "p", started, "retrain")
    chosen = Settings(root=tmp_path, cache=tmp_path / "cache")
    of_run.verify_models(chosen, ran, None)
    (judged / name).write_text("better")
    with pytest.raises(UserError, match=f"artifacts/evaluate/tokenizer/{name} .* is damaged: expected md5 .*, found"):
        of_run.verify_models(chosen, ran, "images")
    (judged / name).unlink()
    with pytest.raises(UserError, match=f"artifacts/evaluate/tokenizer/{name} .* is not there: expected md5"):
        of_run.verify_models(chosen, ran, None)


def test_what_a_stage_has_read_is_held_against_dvc_lock_before_the_run_is_recorded(places, store):
    with recorded.opened(places, recorded.find(places, None)) as ran:
        results = recorded.results(places, ran, store.stages)
        finalise.verify(places.settings, ran, store.stages, results)
        flip(ran.workspace / FILES[0], unseen=True)
        with pytest.raises(UserError, match=f"{FILES[0]} .* is damaged: expected md5"):
            finalise.verify(places.settings, ran, store.stages, results)


def test_the_doctor_brings_a_damaged_object_from_the_remote(places, store, tmp_path):
    path = of(store, FILES[0])
    right = path.read_bytes()
    with store.repo.config.edit("local") as config:
        config["remote"] = {"there": {"url": str(tmp_path / "remote")}}
        config["core"] = {"remote": "there"}
    with Store(places.settings.root).repo as repo:
        repo.push()
    flip(path, unseen=True)
    (found,) = stored.cached(places, deep=True)
    assert (found.subject, found.should) == (FILES[0], f"md5 {path.parent.name}{path.name}")
    found.repair()
    assert path.read_bytes() == right
    assert list(stored.cached(places, deep=True)) == []
    flip(path)
    flip(tmp_path / "remote/files/md5" / path.parent.name / path.name)
    (found,) = stored.cached(places, deep=False)
    found.repair()
    assert not path.exists()  # the remote's is damaged too, and not taken


def test_an_object_is_read_once_for_each_state_of_its_file(tmp_path, monkeypatch):
    objects, read = Objects(tmp_path), []
    original = integrity._md5
    monkeypatch.setattr(integrity, "_md5", lambda path: (read.append(path), original(path))[1])
    oid = "b10a8db164e0754105b7a99be72e3fe5"  # of "Hello World"
    objects.path(oid).parent.mkdir(parents=True)
    objects.path(oid).write_bytes(b"Hello World")
    for _ in range(3):
        assert objects.contents([oid]) == {oid: oid}
    assert len(read) == 1
    assert objects.contents([oid], deep=True) == {oid: oid}
    assert len(read) == 2
    objects.path(oid).write_bytes(b"Hello world")
    assert objects.damaged({"a": oid})[0].found == "3e25960a79dbc69b674cd4ec67a72c62"
    (tmp_path / integrity.READ).write_bytes(b"no database")
    assert objects.damaged({"a": oid})[0].found == "3e25960a79dbc69b674cd4ec67a72c62"
