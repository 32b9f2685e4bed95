"""MLflow's embedded store after a collection: registered versions whole, what was deleted or never finished gone."""

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.garbage import tracked
from flows.garbage.place import InTheWay, Place
from flows.settings import Settings
from models.tracking import training_run

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with every case in it; building one takes MLflow seconds."""
    home = tmp_path_factory.mktemp("project")
    settings = Settings(root=home, home=home / ".remint")
    settings.home.mkdir()
    monkey = pytest.MonkeyPatch()
    monkey.setenv("MLFLOW_TRACKING_URI", settings.mlflow_uri)  # where MLflow itself looks up models:/ addresses
    client, reason = training_run.connect(settings.mlflow_uri)
    assert client, reason
    experiment = training_run.experiment(client, "tokenizer")

    def run(name: str, **tags: str) -> str:
        run_id = client.create_run(experiment, tags=tags, run_name=name).info.run_id
        client.log_text(run_id, "x" * 1000, "note.txt")
        return run_id

    def model(name: str, run_id: str | None) -> str:
        logged = client.create_logged_model(experiment, name=name, source_run_id=run_id)
        folder = Path(logged.artifact_location)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("w" * 2000)
        return logged.model_id

    def version(model_id: str, run_id: str) -> str:
        return client.create_model_version("tokenizer", f"models:/{model_id}", run_id, model_id=model_id).version

    client.create_registered_model("tokenizer")
    stage = {training_run.STAGE: "tokenizer"}
    runs = {name: run(name, **stage) for name in ("kept", "deleted", "registered", "unregistered")}
    models = {name: model("tokenizer", runs["kept"]) for name in ("left", "unversioned")}
    models |= {"registered": model("tokenizer", runs["registered"]), "users": model("mine", run("by hand"))}
    models |= {"deleted": model("mine", None), "alone": model("mine", None)}
    version(models["registered"], runs["registered"])
    client.delete_model_version("tokenizer", version(models["unversioned"], runs["unregistered"]))
    for name in ("deleted", "registered", "unregistered"):
        client.delete_run(runs[name])
    client.delete_logged_model(models["deleted"])
    client.delete_logged_model(models["registered"])  # somebody's mistake: a version stands on it
    folder = Path(client.get_experiment(experiment).artifact_location)
    for lost in (folder / ("0" * 32) / "artifacts", folder / "models" / f"m-{'0' * 32}" / "artifacts"):
        lost.mkdir(parents=True)
        (lost / "file").write_text("f" * 3000)
    (folder / "traces" / "1").mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    yield SimpleNamespace(settings=settings, client=client, runs=runs, models=models, folder=folder)
    monkey.undo()


def place(store, grace=0.0, ahead=10.0, living=()):
    return Place(store.settings, frozenset(living), time.time() + ahead, grace)


def test_only_what_nothing_stands_on_is_found_and_goes_for_good(store):
    now = place(store)
    with tracked.guard(now):
        found = {item.what: item for item in tracked.find(now)}
    lost = store.folder / ("0" * 32), store.folder / "models" / f"m-{'0' * 32}"
    gone_runs, gone_models = ("deleted", "unregistered"), ("left", "unversioned", "deleted")
    expected = {f"run {store.runs[name]}" for name in gone_runs}
    expected |= {f"model {store.models[name]}" for name in gone_models} | {f"files {path}" for path in lost}
    assert set(found) == expected
    assert found[f"model {store.models['left']}"].bytes == 2000
    assert found[f"run {store.runs['deleted']}"].bytes == 1000
    for item in found.values():
        tracked.delete(now, item)
    assert list(tracked.find(now)) == []
    here = {path.name for path in [*store.folder.iterdir(), *(store.folder / "models").iterdir()]}
    kept = {store.runs[name] for name in store.runs if name not in gone_runs}
    kept |= {store.models[name] for name in store.models if name not in gone_models}
    assert kept <= here
    assert not {path.name for path in lost} & here
    assert {"traces", "notes.txt"} <= here
    assert not {store.models[name] for name in gone_models} & here


def test_a_registered_version_is_whole_afterwards(store):
    for item in tracked.find(place(store)):
        tracked.delete(place(store), item)
    version = store.client.get_model_version("tokenizer", "1")
    assert version.run_id == store.runs["registered"]
    model_id = version.source.rpartition("/")[2]
    assert (store.folder / "models" / model_id / "artifacts" / "model.safetensors").read_text() == "w" * 2000


def test_a_removal_that_was_killed_between_files_and_row_is_completed(store):
    run_id = store.client.create_run(training_run.experiment(store.client, "tokenizer")).info.run_id
    store.client.delete_run(run_id)  # and its files are gone already
    (item,) = [item for item in tracked.find(place(store)) if item.what == f"run {run_id}"]
    tracked.delete(place(store), item)
    tracked.delete(place(store), item)
    assert f"run {run_id}" not in {item.what for item in tracked.find(place(store))}


def test_what_was_deleted_within_the_grace_period_can_still_be_restored(store):
    run_id = store.client.create_run(training_run.experiment(store.client, "tokenizer")).info.run_id
    store.client.delete_run(run_id)
    assert f"run {run_id}" not in {item.what for item in tracked.find(place(store, grace=3600))}
    assert f"run {run_id}" in {item.what for item in tracked.find(place(store, grace=3600, ahead=3700))}


def test_files_outside_of_the_home_are_never_touched(store, tmp_path):
    client = store.client
    experiment = client.create_experiment("elsewhere", artifact_location=str(tmp_path / "elsewhere"))
    run_id = client.create_run(experiment).info.run_id
    client.log_text(run_id, "x", "note.txt")
    client.delete_run(run_id)
    (tmp_path / "elsewhere" / ("1" * 32)).mkdir()
    assert not [item for item in tracked.find(place(store)) if run_id in item.what or "elsewhere" in item.what]


def test_a_server_is_left_to_itself_and_a_living_run_is_waited_for(store, tmp_path):
    served = Settings(root=tmp_path, mlflow_uri="http://me:secret@mlflow:5000")
    with (
        pytest.raises(InTheWay, match="http://mlflow:5000 keeps its own files"),
        tracked.guard(Place(served, frozenset(), 0.0, 0.0)),
    ):
        pass
    with pytest.raises(InTheWay, match="run r1 is working"), tracked.guard(place(store, living=["r1"])):
        pass
