"""Models of a small graph, made again from their tags: identical, different with a cause, interrupted, alarming."""

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows import settings
from flows.pipeline import environment
from flows.server import connect

pytestmark = [pytest.mark.integration, pytest.mark.slow]

STAGE = '''\
"""A stage: reads its inputs, writes data or a small model that follow from them, the parameters and the seed."""
import hashlib, json, os, sys, time
from pathlib import Path
import numpy as np, yaml
from safetensors.numpy import save_file

name, out, *inputs = sys.argv[1:]
params = yaml.safe_load(Path("params.yaml").read_text())
print(name, "starts", flush=True)
if ran := os.environ.get("TOY_RAN"):
    Path(ran).open("a").write(f"{name}\\n")
if os.environ.get("TOY_FAIL") == name:
    sys.exit("it cannot be made here")
waits, _, flag = os.environ.get("TOY_WAIT", "").partition(":")
while waits == name and Path(flag).exists():
    Path(flag + ".reached").touch()
    time.sleep(0.05)
read = [path.read_bytes() for i in inputs for path in sorted(Path(i).rglob("*")) if path.is_file()]
said = json.dumps([name, params["seed"], params.get(name)]).encode()
number = int.from_bytes(hashlib.sha256(said + b"".join(read)).digest()[:4], "big")
Path(out).mkdir(parents=True, exist_ok=True)
if name == "scenes":
    Path(out, "data.txt").write_text(str(number))
else:
    rng = np.random.default_rng(number)
    weights = {"a": rng.random((4, 3), np.float32), "b": np.ones(5, np.float32)}
    if params["random"] == name:
        weights["a"][1, 2] += params["noise"] * int.from_bytes(os.urandom(4), "big") / 2**32
    Path(out, "model").mkdir()
    save_file(weights, Path(out, "model", "model.safetensors"))
    Path(out, "model", "config.json").write_text(json.dumps({"stage": name}))
    Path(out, "metrics.json").write_text(json.dumps({"psnr": 20 + float(weights["a"].mean())}))
'''

DVC_YAML = """\
stages:
  scenes:
    cmd: python stage.py scenes artifacts/scenes
    deps: [stage.py]
    params: [seed]
    outs: [artifacts/scenes]
  tokenizer:
    cmd: python stage.py tokenizer artifacts/tokenizer artifacts/scenes
    deps: [stage.py, artifacts/scenes]
    params: [seed, tokenizer, random, noise]
    outs: [artifacts/tokenizer/model]
    metrics: [artifacts/tokenizer/metrics.json]
  generator:
    foreach: [maskgit]
    do:
      cmd: python stage.py generator@${item} artifacts/generator/${item} artifacts/tokenizer/model
      deps: [stage.py, artifacts/tokenizer/model]
      params: [seed]
      outs: ["artifacts/generator/${item}/model"]
      metrics: ["artifacts/generator/${item}/metrics.json"]
  depth-teacher:
    cmd: python stage.py depth-teacher artifacts/depth-teacher artifacts/scenes
    deps: [stage.py, artifacts/scenes]
    params: [seed, random, noise]
    outs: [artifacts/depth-teacher/model]
    metrics: [artifacts/depth-teacher/metrics.json]
artifacts:
  tokenizer: {path: artifacts/tokenizer/model, type: model}
  maskgit: {path: artifacts/generator/maskgit/model, type: model}
  depth-teacher: {path: artifacts/depth-teacher/model, type: model}
"""

MODELS = {"tokenizer": "tokenizer", "maskgit": "generator/maskgit", "depth-teacher": "depth-teacher"}


@dataclass(frozen=True)
class Project:
    """A repository with recorded runs, and the command line in it."""

    toy: object
    api: str

    @property
    def root(self) -> Path:
        return self.toy.root

    def reproduce(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        return self.toy.remint("reproduce", *arguments, REMINT_PREFECT_API=self.api, **variables)

    def proof(self, *arguments: str, code: int = 0, **variables: str) -> dict:
        done = self.reproduce(*arguments, "--json", **variables)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def record(self, number: int, **parameters: object) -> str:
        """Run the graph with DVC alone, and record it as a run does: commit, run tag, version tags."""
        text = "".join(f"{key}: {value}\n" for key, value in parameters.items())
        (self.root / "params.yaml").write_text(text)
        quiet = os.environ | {"DVC_SITE_CACHE_DIR": str(self.root / ".remint" / "dvc")}
        subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=self.root, env=quiet, check=True)
        noted = environment.trailer(environment.describe(self.root))
        self.toy.git("add", "--all", "--force", "dvc.lock", "params.yaml")
        self.toy.git("commit", "--quiet", "--message", f"Record run {number}\n\n{noted}")
        self.toy.git("tag", "-a", "-m", f"Run {number}", f"run/{number}")
        for name, folder in MODELS.items():
            weights = (self.root / "artifacts" / folder / "model" / "model.safetensors").read_bytes()
            words = f"{name} v{number} of run/{number}\n\nweights {hashlib.sha256(weights).hexdigest()}"
            self.toy.git("tag", "-a", "-m", words, f"{name}@v{number}.0.0")
        return self.toy.git("rev-parse", "HEAD")


PARAMETERS = {"seed": 1, "tokenizer": "{steps: 3}", "random": "nobody", "noise": 0.0}


@pytest.fixture(scope="module")
def project(make_toy, tmp_path_factory):
    """Run 1 in production; run 2 with a stage that is not deterministic. One Prefect server for the module."""
    toy = make_toy(tmp_path_factory.mktemp("project"))
    (toy.root / "stage.py").write_text(STAGE)
    (toy.root / "dvc.yaml").write_text(DVC_YAML)
    chosen = settings.load(toy.root)
    with connect.borrowed(chosen, settings.child_environment(chosen)) as api:
        made = Project(toy, api)
        toy.git("add", "--all")
        made.record(1, **PARAMETERS)
        for name in MODELS:
            toy.git("tag", "-a", "-m", f"{name}@v1.0.0 to production: the first", f"{name}#production#1")
        made.record(2, **PARAMETERS | {"random": "tokenizer", "noise": 1.0})
        yield made


@pytest.fixture(scope="module")
def clone(project, tmp_path_factory):
    """Another clone: it has git and nothing else."""
    root = tmp_path_factory.mktemp("clone") / "project"
    subprocess.run(["git", "clone", "--quiet", str(project.root), str(root)], check=True)
    return Project(type(project.toy)(root), project.api)


def stages(proof):
    return {stage["stage"]: stage["identical"] for stage in proof["stages"]}


def journal(project, kind):
    with closing(sqlite3.connect(project.root / ".remint" / "catalogue.db")) as database:
        rows = database.execute("SELECT subject, body FROM journal WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
    return [(subject, json.loads(body)) for subject, body in rows]


def test_a_clone_makes_all_of_production_again_to_the_last_byte(clone):
    done = clone.reproduce("--all", "--json")
    assert done.returncode == 0, done.stderr
    (proof,) = json.loads(done.stdout)  # one commit made all three: one run
    assert {one["model"]: one["verdict"] for one in proof["models"]} == dict.fromkeys(MODELS, "identical")
    assert stages(proof) == dict.fromkeys(["scenes", "tokenizer", "generator@maskgit", "depth-teacher"], True)
    assert all(one["weights"]["then"] == one["weights"]["now"] for one in proof["models"])
    assert proof["environment"]["noted_by_the_run"]
    assert proof["environment"]["differences"] == []
    assert "restored" not in done.stderr
    assert "this clone has none" in done.stderr  # no registry to note it in
    assert {subject for subject, body in journal(clone, "reproduction")} == {f"{name}@v1" for name in MODELS}
    (folder,) = (clone.root / ".remint" / "reproductions").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["logs", "proof.json"]
    assert not (clone.root / ".remint" / "mlflow.db").exists()


def test_a_stage_that_is_not_deterministic_raises_an_alarm_and_shows_its_tensors(project):
    proof = project.proof("tokenizer@v2", "--from", "inputs", "--tensors", "9", "--metrics", "1", code=3)
    assert proof["verdict"] == "same within tolerance"
    assert stages(proof) == {"tokenizer": False}
    (tensors,) = proof["stages"][0]["tensors"].values()
    assert [one["name"] for one in tensors] == ["a"]  # "b" is the same
    assert tensors[0]["share"] == pytest.approx(1 / 12)
    assert 0 < tensors[0]["max_abs"] <= 1
    psnr = proof["stages"][0]["metrics"]["psnr"]
    assert psnr["then"] != psnr["now"]
    ((stage, alarm),) = journal(project, "alarm")
    assert stage == "tokenizer"
    assert len(set(alarm["outputs"])) == 2
    assert journal(project, "reproduction")[-1][1]["first_difference"] == "tokenizer"


def test_a_changed_seed_in_the_tags_parameters_is_different_and_named(project):
    root = project.root
    head = project.toy.git("rev-parse", "HEAD")
    project.toy.git("checkout", "--quiet", "--detach", "tokenizer@v1.0.0")
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("seed: 1", "seed: 2"))
    project.toy.git("commit", "--quiet", "--all", "--message", "Another seed under the old results")
    project.toy.git("tag", "-a", "-m", "tampered", "tokenizer@v7.0.0")
    project.toy.git("checkout", "--quiet", "--detach", head)
    done = project.reproduce("tokenizer@v7")
    assert done.returncode == 1, done.stderr
    assert "scenes of this commit is not what its dvc.lock records: seed: 1 -> 2" in done.stderr  # before it runs
    assert "different, first in stage scenes" in done.stdout
    assert "seed: 1 -> 2" in done.stdout.splitlines()[-1]
    assert "did not note its environment" in done.stderr


def test_a_killed_reproduction_goes_on_with_what_it_finished(clone, tmp_path):
    (tmp_path / "wait").touch()
    known = {"REMINT_PREFECT_API": clone.api, "TOY_WAIT": f"tokenizer:{tmp_path / 'wait'}"}
    process = clone.toy.start("reproduce", "tokenizer@v1", **known)
    until = time.monotonic() + 120
    while not (tmp_path / "wait.reached").exists():
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    second = clone.reproduce("tokenizer@v1")
    assert (second.returncode, "is being reproduced here already" in second.stderr) == (2, True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = clone.reproduce("tokenizer@v1")
    assert done.returncode == 0, done.stderr
    assert "scenes: restored from the run cache" in done.stderr
    assert "tokenizer: done" in done.stderr
    assert "identical" in done.stdout


def test_a_stage_that_fails_ends_it_with_the_stages_last_words(project):
    done = project.reproduce("depth-teacher@v1", "--from", "inputs", TOY_FAIL="depth-teacher")
    assert done.returncode == 1
    assert "it cannot be made here" in done.stderr
    assert "failed. depth-teacher: failed with exit code 1" in done.stdout.splitlines()[-1]
    assert journal(project, "reproduction")[-1][1]["verdict"] == "failed"
    (folder,) = (project.root / ".remint" / "reproductions").glob("*-depth-teacher")
    assert (folder / "environment.json").exists()  # the next attempt goes on here


def test_inputs_that_are_nowhere_are_named(clone):
    done = clone.reproduce("maskgit", "--from", "inputs")
    assert done.returncode == 2
    assert "artifacts/tokenizer/model is not in the cache" in done.stderr
    assert "--from scratch" in done.stderr


def test_other_packages_than_the_locks_end_it_before_anything_runs(project):
    (project.root / "requirements.lock").write_text("numpy==0.0.1\n")
    project.toy.git("add", "--force", "requirements.lock")
    project.toy.git("commit", "--quiet", "--message", "A lock that is not what is installed")
    project.toy.git("tag", "-a", "-m", "by hand", "tokenizer@v8.0.0")
    (project.root / "stage.py").write_text("changed since")
    done = project.reproduce("tokenizer@v8")
    assert done.returncode == 2
    assert "numpy" in done.stderr
    assert "locked 0.0.1" in done.stderr
    assert "pip install -r" in done.stderr
    assert "Uncommitted here, so not part of it: stage.py" in done.stderr
