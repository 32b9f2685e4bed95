"""Run tracking: what is recorded, and that a missing MLflow or server never stops a stage."""

import json
import re
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from PIL import Image

from models.tracking import experiments, names, training_run
from models.tracking import server as mlflow_server


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """One embedded database for this file: making one takes 1.5 s."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def uri(home, monkeypatch):
    """The embedded database, named to the stage as the flow does it."""
    uri = training_run.embedded_uri(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    training_run.say.cache_clear()
    return uri


def client(uri: str):
    found, reason = training_run.connect(uri)
    assert found is not None, reason
    return found


def test_a_run_keeps_params_losses_by_step_figures_and_tags(uri, home, tmp_path, monkeypatch):
    monkeypatch.setenv("REMINT_RUN", "r1")
    picture = tmp_path / "reconstructions.png"
    Image.new("RGB", (8, 8)).save(picture)
    with training_run.open_run("tokenizer", {"lr": 1e-3, "net": {"dim": 8}}, {"input.scenes": "abc"}) as run:
        for step in range(3):
            run.metrics({"train_loss": 1.0 / (step + 1)}, step)
        run.figure(picture)
        run.tags({"output": "def"})
    mlflow = client(uri)
    kept = mlflow.get_run(run.run_id)
    assert kept.info.status == "FINISHED"
    assert kept.data.params == {"lr": "0.001", "net.dim": "8"}
    assert {"stage": "tokenizer", "run": "r1", "input.scenes": "abc", "output": "def"}.items() <= kept.data.tags.items()
    assert [(d.dataset.name, d.dataset.digest) for d in kept.inputs.dataset_inputs] == [("scenes", "abc")]
    assert [m.step for m in mlflow.get_metric_history(run.run_id, "train/loss")] == [0, 1, 2]
    assert any("reconstructions" in f.path for f in mlflow.list_artifacts(run.run_id, "images"))
    assert mlflow.get_experiment(kept.info.experiment_id).name == "tokenizer"
    assert (home / ".remint" / "mlflow").is_dir()  # artifacts lie beside the database, not in the cwd


def test_a_stage_that_fails_leaves_a_failed_run(uri):
    def stage() -> None:
        with training_run.open_run("proxy") as run:
            runs.append(run.run_id)
            run.metrics({"train_loss": 1.0}, 7)
            raise RuntimeError("out of ideas")

    runs: list[str | None] = []
    with pytest.raises(RuntimeError):
        stage()
    kept = client(uri).get_run(runs[0])
    assert kept.info.status == "FAILED"
    assert kept.data.metrics == {"train/loss": 1.0}


def test_more_metrics_than_one_request_may_hold_all_arrive(uri):
    with training_run.open_run("proxy") as run:
        for step in range(1100):
            run.metrics({"train_loss": step}, step)
    assert len(client(uri).get_metric_history(run.run_id, "train/loss")) == 1100


def test_metrics_are_grouped_by_what_measured_them():
    assert names.grouped("train_loss") == "train/loss"
    assert names.grouped("val_loss") == "val/loss"
    assert names.grouped("images_per_second") == "workload/images_per_second"


def test_an_evaluations_metrics_are_those_over_all_classes():
    values = {"teacher": {"delta1": 0.9, "delta1_glass": 0.8}, "small": {"delta1": 0.8}}
    assert names.final("evaluate@depth", values) == {"eval/teacher/delta1": 0.9, "eval/small/delta1": 0.8}
    assert names.final("tokenizer", {"psnr": 24.0, "val_loss": 1.0}) == {"val/psnr": 24.0}


def test_the_results_of_a_stage_are_kept_whole_in_a_file_beside_their_metrics(uri):
    with training_run.open_run("evaluate@maskgit") as run:
        run.results({"gfwd": 0.2, "class_agreement_glass": 90.0})
    mlflow = client(uri)
    assert mlflow.get_run(run.run_id).data.metrics == {"eval/gfwd": 0.2}
    assert [file.path for file in mlflow.list_artifacts(run.run_id)] == ["metrics.json"]


def test_a_runs_name_says_when_before_its_stage():
    assert names.run_name("tokenizer-warmup", "20261127T180159Z-23fb4fd") == "1127T1801 tokenizer-warmup"
    assert re.fullmatch(r"\d{4}T\d{4} tokens", names.run_name("tokens", None))
    assert re.fullmatch(r"\d{4}T\d{4} tokens", names.run_name("tokens", "r1"))


def test_an_experiments_page_links_to_a_view_with_the_headline_metric_first(uri):
    mlflow = client(uri)
    identifier = experiments.experiment(mlflow, "generator")
    tags = mlflow.get_experiment(identifier).tags
    assert f"#/experiments/{identifier}/runs?viewStateShareKey=headline" in tags["mlflow.note.content"]
    state = json.loads(json.loads(tags["mlflow.sharedViewState.headline"])["state"])
    assert state["selectedColumns"][0] == "metrics.`eval/gfwd`"
    assert experiments.experiment(mlflow, "generator") == identifier


def test_a_deleted_experiment_is_restored_before_a_run_and_by_a_stage(uri, capsys):
    mlflow = client(uri)
    for restore in (training_run.prepare, lambda: experiments.experiment(mlflow, "depth")):
        identifier = experiments.experiment(mlflow, "depth")
        mlflow.delete_experiment(identifier)
        restore()
        assert mlflow.get_experiment(identifier).lifecycle_stage == "active"
        mlflow.create_run(identifier)
    assert "MLflow's experiment 'depth' had been deleted; it is restored" in capsys.readouterr().err


def test_stages_of_a_family_share_an_experiment():
    assert experiments.family_of("generator@maskgit") == "generator"
    assert experiments.family_of("evaluate@maskgit") == "generator"
    assert experiments.family_of("depth-student@small") == experiments.family_of("evaluate@depth") == "depth"
    assert experiments.family_of("something-new") == "something-new"


def test_without_a_database_nothing_is_tracked_and_that_is_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    training_run.say.cache_clear()
    for _ in range(2):
        with training_run.open_run("proxy", {"lr": 1}) as run:
            run.metrics({"train_loss": 1.0}, 0)
            run.figure(tmp_path / "absent.png")
    assert run.run_id is None
    assert capsys.readouterr().err.count("tracking: off (no tracking database") == 1


def test_an_empty_address_switches_tracking_off(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert training_run.tracking_uri() is None


def test_a_server_that_is_absent_does_not_hold_up_a_stage(monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:secret@127.0.0.1:{port}")
    training_run.say.cache_clear()
    started = time.monotonic()
    with training_run.open_run("proxy") as run:
        run.metrics({"train_loss": 1.0}, 0)
    assert run.run_id is None
    assert time.monotonic() - started < 5
    said = capsys.readouterr().err
    assert f"127.0.0.1:{port} does not answer" in said
    assert "secret" not in said


def test_a_server_that_accepts_and_says_nothing_is_given_up_soon():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        started = time.monotonic()
        assert not mlflow_server.answers(f"http://127.0.0.1:{deaf.getsockname()[1]}", seconds=0.3)
        assert time.monotonic() - started < 2


def test_a_server_that_dies_during_a_stage_costs_a_line_and_is_tried_ever_less_often(capsys):
    class Dying:
        calls = 0

        def log_batch(self, *_, **__):
            self.calls += 1
            raise ConnectionError("gone")

    training_run.say.cache_clear()
    server = Dying()
    run = training_run.MlflowTracker(server, "1")
    run.metrics({"train_loss": 1.0}, 0)
    run.flush()
    run.flush()
    assert server.calls == 2
    assert run._pause == 4 * training_run.FLUSH_SECONDS
    assert capsys.readouterr().err.count("gone") == 1


def test_without_the_library_the_folder_named_mlflow_is_not_taken_for_it(tmp_path):
    """`import mlflow` finds this repository's folder mlflow/ when the library is missing."""
    script = """
        import sys
        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.startswith("mlflow."):
                    raise ModuleNotFoundError(name)
        import importlib.machinery, types
        sys.meta_path.insert(0, Absent())
        sys.modules["mlflow"] = types.ModuleType("mlflow")  # a namespace without code
        from models.tracking import training_run as tracking
        with tracking.open_run("proxy") as run:
            run.metrics({"train_loss": 1.0}, 0)
        print(run.run_id)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.strip() == "None", done.stderr
    assert "mlflow is not installed" in done.stderr


def test_a_database_server_that_is_not_there_is_not_knocked_at_for_long():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"postgresql+psycopg://me:secret@127.0.0.1:{server.getsockname()[1]}/mlflow"
        began = time.monotonic()
        assert training_run.connect(address)[0] is None
        assert time.monotonic() - began < 3
        server.listen()
        assert mlflow_server.answers(address)
    assert mlflow_server.answers("sqlite:////nowhere/mlflow.db")
