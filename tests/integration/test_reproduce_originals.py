"""The original's bytes are found in the cache, in DVC's remote, or in the bundle of a release."""

import shutil

import pytest

from data.core.params import UserError
from flows import settings
from flows.pipeline.families import models_in
from flows.pipeline.graph import Stage
from flows.pipeline.store import Store
from flows.reproduce import originals
from flows.reproduce.target import Target

pytestmark = pytest.mark.integration

MODEL = models_in("artifacts: {tokenizer: {path: artifacts/tokenizer/model, type: model}}")[0]
TARGET = Target(MODEL, "tokenizer@v1.0.0", "0" * 40, "", "git's tags")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A folder that DVC tracks, and has pushed to a remote."""
    from dvc.repo import Repo

    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    root = tmp_path / "project"
    (root / "out" / "inner").mkdir(parents=True)
    (root / "out" / "model.safetensors").write_bytes(b"weights")
    (root / "out" / "inner" / "config.json").write_text("{}")
    with Repo.init(str(root), no_scm=True) as repo:
        with repo.config.edit("repo") as config:
            config["remote"] = {"store": {"url": str(tmp_path / "remote")}}
            config["core"] = {**config.get("core", {}), "remote": "store", "no_scm": True, "analytics": False}
        repo.add(str(root / "out"))
    with Repo(str(root)) as repo:
        repo.push()
    made = Store(root)
    yield made
    made.close()


def oid(store):
    return next(stage.outs[0].hash_info.value for stage in store.repo.index.stages)


def lose(store):
    """Empty the cache; its folders stay, as DVC remembers which it has made."""
    for path in (store.root / ".dvc" / "cache").rglob("*"):
        if path.is_file():
            path.unlink()


def names(found):
    return {name: path.read_bytes() for name, path in found.items()}


def test_from_the_cache(store, tmp_path):
    shutil.rmtree(tmp_path / "remote")
    expected = {"model.safetensors": b"weights", "inner/config.json": b"{}"}
    assert names(originals.find(store, oid(store))) == expected


def test_from_the_remote_when_the_cache_lost_all_or_a_part(store):
    wanted = oid(store)
    store.cache.files(wanted)["model.safetensors"].unlink()
    assert names(originals.find(store, wanted))["model.safetensors"] == b"weights"
    lose(store)
    assert len(originals.find(store, wanted)) == 2


def test_from_nowhere(store, tmp_path):
    lose(store)
    shutil.rmtree(tmp_path / "remote")
    assert originals.find(store, oid(store)) == {}


def test_an_input_that_dvc_lock_does_not_record_is_named(store, monkeypatch):
    maker = Stage("scenes", "", outs=("artifacts/scenes",))
    monkeypatch.setitem(store.__dict__, "stages", (maker,))
    with pytest.raises(UserError, match="does not record artifacts/scenes; use --from scratch"):
        originals.put_inputs(store, [Stage("tokenizer", "", deps=("artifacts/scenes",))], TARGET)


def test_a_model_that_was_not_released_has_no_bundle(tmp_path):
    assert originals.weights_of_release(settings.load(tmp_path), TARGET, tmp_path / "into") is None
