"""What `remint retrain` says to a wrong call, before anything runs: one line, the next step, exit code 2."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from data.core import params
from data.core.params import UserError
from flows import repository
from flows.retrain import job

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toy(make_toy, tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("toy"))


def refused(toy, *arguments, **variables):
    """The one line that a refused call says."""
    done = toy.remint("retrain", *arguments, **variables)
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert next(line for line in lines if not line.startswith("Commit ")).startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not list((toy.root / ".remint" / "worktrees").glob("2*"))
    return lines[-1]


def test_a_plan_says_what_would_run_and_why_and_runs_nothing(toy):
    done = toy.remint("retrain", "--plan")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        "stage    action  why",
        "base     run     has never run",
        "left     run     has never run; after base",
    ]
    assert not (toy.root / ".remint" / "prefect").exists()
    assert toy.git("tag") == ""


def test_a_plan_as_json_has_the_changed_parameters(toy):
    done = toy.remint("retrain", "--plan", "--json", "--recipe", "more", "--set", "left.lr=2e-3")
    plan = json.loads(done.stdout)
    assert plan["parameters"] == {"base": 7, "left.lr": 0.002}
    assert plan["plan"][0] == {"stage": "base", "action": "run", "reasons": ["has never run"], "estimate": None}


def test_uncommitted_changes_are_named_as_not_part_of_the_run(toy):
    (toy.root / "params.yaml").write_text((toy.root / "params.yaml").read_text() + "extra: 1\n")
    (toy.root / "notes.txt").write_text("x")
    try:
        done = toy.remint("retrain", "--plan")
        unknown = refused(toy, "--set", "extra=2")
    finally:
        toy.git("checkout", "--quiet", "params.yaml")
        (toy.root / "notes.txt").unlink()
    assert done.returncode == 0
    assert "is what runs. Uncommitted, so not part of it: params.yaml, notes.txt." in done.stderr
    assert "extra is not in params.yaml" in unknown


def test_an_unknown_parameter_names_the_near_one(toy):
    assert "did you mean 'left.lr'?" in refused(toy, "--set", "lefft.lr=1")


def test_a_value_of_the_wrong_type_is_refused(toy):
    assert "left.lr must be a number (it is 0.001), not 'fast'" in refused(toy, "--set", "left.lr=fast")


def test_an_unknown_recipe_names_the_near_one(toy):
    assert "there is no recipe 'mor'; did you mean 'more'?" in refused(toy, "--recipe", "mor")


def test_an_absent_mlflow_server_is_named_with_its_variable(toy):
    said = refused(toy, REMINT_MLFLOW_URI="http://127.0.0.1:1")
    assert said.startswith("error: REMINT_MLFLOW_URI=http://127.0.0.1:1: no MLflow server answers there")


def test_a_home_that_cannot_be_written_is_named(toy):
    (toy.root / "file").write_text("")
    said = toy.remint("retrain", "--plan", REMINT_HOME=str(toy.root / "file"))
    (toy.root / "file").unlink()
    assert said.returncode == 2
    assert "name another folder with REMINT_HOME" in said.stderr


def test_no_locale_decides_how_files_and_names_are_read(toy, tmp_path):
    clone = type(toy)(tmp_path / "öde")
    subprocess.run(["git", "clone", "--quiet", toy.root, clone.root], check=True)
    (clone.root / "naïve.txt").touch()
    (clone.root / "caf\udce9.txt").touch()  # a name in Latin-1
    ascii_only = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = clone.remint("retrain", "--plan", **ascii_only)
    assert done.returncode == 0, done.stderr
    assert "Uncommitted, so not part of it: caf\\udce9.txt, naïve.txt." in done.stderr
    assert "base     run" in done.stdout


def test_where_git_refuses_to_work_its_own_words_are_said_with_what_helps(toy, tmp_path, monkeypatch):
    def said(folder):
        with pytest.raises(UserError) as caught:
            repository.find(folder)
        return str(caught.value)

    subprocess.run(["git", "clone", "--quiet", "--bare", toy.root, tmp_path / "bare"], check=True)
    assert "bare: this operation must be run in a work tree; a bare" in said(tmp_path / "bare")
    assert "init" not in said(tmp_path / "bare")
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / ".git").write_text("gitdir: /nowhere/.git/worktrees/lost\n")
    assert said(tmp_path / "lost").endswith("lost: not a git repository: /nowhere/.git/worktrees/lost")
    clone = tmp_path / "a clone"
    subprocess.run(["git", "clone", "--quiet", toy.root, clone], check=True)
    subprocess.run(["git", "-C", clone, "config", "core.worktree", ".."], check=True)
    assert "is a submodule of another repository" in said(clone)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    others = said(clone)
    assert "detected dubious ownership in repository at" in others
    assert others.endswith(f"git config --global --add safe.directory '{clone}/.git'") or others.endswith(f"'{clone}'")


def test_without_a_repository_or_a_commit_the_next_step_is_said(toy, tmp_path):
    bare = type(toy)(tmp_path)
    done = bare.remint("retrain")
    assert done.returncode == 2
    assert "is not in a git repository" in done.stderr
    bare.git("init", "--quiet")
    done = bare.remint("retrain")
    assert done.returncode == 2
    assert "has no commit yet, and a run works from one: git add -A && git commit" in done.stderr


def test_the_help_answers_at_once_and_lists_the_exit_codes(toy):
    done = toy.remint("retrain", "--help")
    assert done.returncode == 0
    assert "interrupted; `remint retrain` goes on where it stopped" in done.stdout
    heavy = "import sys, flows.cli; print([m for m in ('prefect', 'mlflow', 'dvc', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout == "[]\n"


@pytest.fixture(scope="module")
def checked(make_toy, tmp_path_factory):
    """The small repository with the parameters of this one, and the code that says what they may be."""
    toy = make_toy(tmp_path_factory.mktemp("checked") / "toy")
    for folder in ("data", "models"):
        ignored = shutil.ignore_patterns("__pycache__", "recipes")
        shutil.copytree(ROOT / folder, toy.root / folder, ignore=ignored, dirs_exist_ok=True)
    with (toy.root / "params.yaml").open("a") as file:
        file.write((ROOT / "params.yaml").read_text())
    toy.git("add", "--all")
    toy.git("commit", "--quiet", "--message", "Have parameters that are checked")
    return toy


def test_the_command_says_of_a_value_that_no_stage_could_use_what_would_do(checked):
    assert refused(checked, "--plan", "--set", "proxy.steps=0") == (
        "error: params.yaml: proxy.steps must be at least 1 and at most 100,000,000, not 0"
    )


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("validate.max_drift=.nan", "validate.max_drift must be a finite number, not nan"),
        ("evaluate.maskgit.probe_batch=0", "evaluate.maskgit.probe_batch must be at least 2"),
        ("tokenizer.critic_stages=50", "tokenizer.critic_stages must be at least 0 and at most 12, not 50"),
        ("seed=-1", "params.yaml: seed must be at least 0, not -1"),
        ("scenes.size=48", "photos.size is 64 and scenes.size 48"),
        ("photos.source=", "photos.source is empty; name a folder of photographs"),
        ("photos.source=/nonexistent", "photos.source: /nonexistent does not exist"),
        ("generator.maskgit.sampler.decay=cosine", "must be one of constant, linear, power-cosine, not 'cosine'"),
    ],
)
def test_a_run_is_refused_for_any_section_before_it_begins(checked, assignment, said, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with pytest.raises(UserError) as error, job.prepared(checked.root, assignments=[assignment]):
        pass
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((checked.root / ".remint" / "worktrees").glob("2*"))


def test_a_small_learning_rate_passes_and_is_read_again(checked, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    with job.prepared(checked.root, assignments=["generator.maskgit.lr=0.00001"]) as ready:
        assert params.read(ready.run.workspace / "params.yaml")["generator"]["maskgit"]["lr"] == 1e-05
