"""The README's promise on the real graph with the tiny recipe: retrain, look, retrain again, load, reproduce."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MODELS = {"tokenizer", "maskgit", "samba", "depth-teacher", "depth-small"}

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def sh(folder: Path, *words: str, check: bool = True, **env: str | None) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words,
        cwd=folder,
        env={name: value for name, value in (os.environ | {"PATH": path} | env).items() if value is not None},
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert not check or done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def remint(folder: Path, *words: str, **named) -> subprocess.CompletedProcess:
    # `-m` puts the folder first on the path, so that this repository's own code runs
    return sh(folder, sys.executable, "-c", "from flows.cli import main; main()", *words, **named)


def repository(folder: Path) -> Path:
    """What is checked out here, committed as a repository of its own."""
    names = sh(ROOT, "git", "ls-files", "-co", "--exclude-standard").stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    sh(folder, "git", "init", "--quiet", ".")
    sh(folder, "git", "add", "--all")
    sh(folder, "git", "commit", "--quiet", "--message", "Start")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A repository in which the whole chain ran once; its result as JSON."""
    folder = repository(tmp_path_factory.mktemp("first"))
    done = remint(folder, "retrain", "--recipe", "tiny", "--json")
    return folder, json.loads(done.stdout)


def test_every_stage_of_the_graph_runs_and_every_model_is_released(trained):
    folder, result = trained
    graph = yaml.safe_load((folder / "dvc.yaml").read_text().replace("${images.sets}", "[]"))["stages"]
    expected = {f"{n}@{i}" for n, s in graph.items() for i in s.get("foreach", [])} | {
        n for n, s in graph.items() if "foreach" not in s
    }
    assert {s["stage"] for s in result["stages"]} == expected
    assert {s["action"] for s in result["stages"]} == {"ran"}
    tags = sh(folder, "git", "tag", "--list").stdout.split()
    assert {f"{name}@v1.0.0" for name in MODELS} <= set(tags)
    assert {f"{name}#production#1" for name in MODELS} <= set(tags)
    assert [t for t in tags if t.startswith("run/")]


def test_the_users_checkout_is_left_alone(trained):
    folder, _ = trained
    assert sh(folder, "git", "status", "--porcelain").stdout == ""
    assert sh(folder, "git", "log", "--oneline").stdout.count("\n") == 1
    assert not (folder / "artifacts").exists()


def test_a_second_run_finds_nothing_to_do_and_starts_no_server(trained):
    folder, _ = trained
    began = time.process_time(), os.times().children_user
    done = remint(folder, "retrain", "--recipe", "tiny")
    assert "Nothing to do" in done.stdout
    assert os.times().children_user - began[1] < 8  # far above what it takes, far below a server's start
    assert len(sh(folder, "git", "tag", "--list", "run/*").stdout.split()) == 1


def test_a_changed_learning_rate_of_the_generator_plans_only_what_follows_from_it(trained):
    folder, _ = trained
    done = remint(folder, "retrain", "--recipe", "tiny", "--set", "generator.maskgit.lr=0.00123", "--plan", "--json")
    steps = {s["stage"]: s for s in json.loads(done.stdout)["plan"]}
    running = {name for name, step in steps.items() if step["action"] == "run"}
    assert running == {"generator@maskgit", "evaluate@maskgit", "report"}
    assert any("0.00123" in reason for reason in steps["generator@maskgit"]["reasons"])


def test_production_loads_in_python_and_through_mlflow(trained):
    folder, _ = trained
    code = """
import numpy as np, mlflow, models
tokenizer = models.load("tokenizer@production")
print(sorted(type(models.load(f"{n}@production")).__name__ for n in ("maskgit", "depth-small", "depth-teacher")))
loaded = mlflow.pyfunc.load_model("models:/tokenizer@production")
print(loaded.metadata.signature is not None, loaded.input_example is not None)
print(type(loaded.predict(loaded.input_example)).__name__)
"""
    uri = f"sqlite:///{folder / '.remint' / 'mlflow.db'}"
    done = sh(folder, sys.executable, "-c", code, MLFLOW_TRACKING_URI=uri)
    assert "True True" in done.stdout


def test_the_readme_s_python_runs_as_it_stands_and_leaves_nothing_in_the_checkout(trained):
    folder, _ = trained
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    before = {path.name for path in folder.iterdir()}
    unset = {"MLFLOW_TRACKING_URI": None}
    done = sh(folder, sys.executable, "-c", f"{block}\nprint(tokens.shape[0], disparity.ndim)", **unset)
    assert done.stdout.splitlines()[-1] == "2 3"
    assert {path.name for path in folder.iterdir()} - before <= {"__pycache__"}
    assert sh(folder, "git", "status", "--porcelain").stdout == ""


def test_gto_and_dvc_find_the_released_models_in_git(trained, tmp_path):
    folder, _ = trained
    shown = sh(folder, "gto", "show").stdout
    assert all(name in shown for name in MODELS)
    sh(tmp_path, "dvc", "artifacts", "get", str(folder), "tokenizer", "--stage", "production", "--out", "model")
    assert (tmp_path / "model" / "model.safetensors").stat().st_size > 0


def test_the_report_is_one_file_with_its_pictures_inside(trained):
    folder, result = trained
    page = Path(result["report"])
    text = (page if page.is_absolute() else folder / page).read_text()
    assert text.count("data:image/png;base64,") >= 5
    assert 'src="http' not in text


@pytest.mark.soak  # on a small graph, `test_reproduce_runs.py` and `test_reproduce_workers.py` have it in every run
def test_another_clone_makes_a_model_again_to_the_last_byte(trained, tmp_path):
    folder, _ = trained
    sh(tmp_path, "git", "clone", "--quiet", str(folder), "second")
    done = remint(tmp_path / "second", "reproduce", "depth-teacher@production", "--json")
    proof = json.loads(done.stdout)
    assert proof["verdict"] == "identical", done.stderr
    assert {"scenes", "depth-teacher"} <= {stage["stage"] for stage in proof["stages"]}


@pytest.mark.soak
def test_another_clone_gives_the_same_lock_file_to_the_byte(trained, tmp_path):
    folder, _ = trained
    tag = sh(folder, "git", "tag", "--list", "run/*").stdout.split()[0]
    sh(tmp_path, "git", "clone", "--quiet", "--no-tags", str(folder), "second")
    remint(tmp_path / "second", "retrain", "--recipe", "tiny")
    other = sh(tmp_path / "second", "git", "tag", "--list", "run/*").stdout.split()[0]
    first = sh(folder, "git", "show", f"{tag}:dvc.lock").stdout
    assert first == sh(tmp_path / "second", "git", "show", f"{other}:dvc.lock").stdout
    assert first.count("md5:") > 100
