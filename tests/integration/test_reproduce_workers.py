"""Models of a small graph, made again from their tags by workers: nothing that is known of them counts."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from data.core.params import UserError
from flows import settings
from flows.reproduce import run, target
from flows.reproduce.compare import Tolerance
from tests import workers
from tests.integration.test_reproduce_runs import DVC_YAML, PARAMETERS, STAGE, Project

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def farm(make_toy, prefect_server, tmp_path_factory):
    """A project with a recorded run in production, everything of which is known: in the cache that the machines share,
    and in the remote, as a run on workers leaves it."""
    folder = tmp_path_factory.mktemp("farm")
    (folder / "project").mkdir()
    toy = make_toy(folder / "project")
    (toy.root / "stage.py").write_text(STAGE)
    (toy.root / "dvc.yaml").write_text(DVC_YAML)
    toy.git("add", "--all")
    project = Project(toy, prefect_server.api)
    project.record(1, **PARAMETERS)
    toy.git("tag", "-a", "-m", "tokenizer@v1.0.0 to production: the first", "tokenizer#production#1")
    _tamper(project)
    shared = {"REMINT_CACHE": str(folder / "cache"), "TOY_RAN": str(folder / "ran"), "REMINT_VANISHED": "40"}
    shared |= {"TOY_WAIT": f"tokenizer:{folder / 'wait'}", "OMP_NUM_THREADS": "1"}
    with workers.farm(folder, toy.root, prefect_server.api, **shared) as made:
        for place in ("cache", "shared/dvc"):
            shutil.copytree(toy.root / ".dvc" / "cache", folder / place)
        yield made


def _tamper(project):
    """Another seed under the old results as version 7, other packages than those that are installed as version 8."""
    root, git = project.root, project.toy.git
    head = git("rev-parse", "HEAD")
    (root / "params.yaml").write_text((root / "params.yaml").read_text().replace("seed: 1", "seed: 2"))
    git("commit", "--quiet", "--all", "--message", "Another seed under the old results")
    git("tag", "-a", "-m", "tampered", "tokenizer@v7.0.0")
    git("reset", "--quiet", "--hard", head)
    (root / "requirements.lock").write_text("numpy==0.0.1\n")
    git("add", "--force", "requirements.lock")
    git("commit", "--quiet", "--message", "A lock that is not what is installed")
    git("tag", "-a", "-m", "by hand", "tokenizer@v8.0.0")
    git("reset", "--quiet", "--hard", head)


@pytest.fixture
def served(farm):
    if not farm.workers:
        farm.start("cpu")
    (farm.folder / "ran").unlink(missing_ok=True)
    return farm


def start(farm, *arguments, clone="desk"):
    command = [sys.executable, "-c", "from flows.cli import main; main()", "reproduce", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = workers.foreign(os.environ) | farm.environment
    return subprocess.Popen(command, cwd=farm.clone(clone), env=environment, **pipes)


def reproduce(farm, *arguments, code=0, clone="desk"):
    process = start(farm, *arguments, clone=clone)
    out, err = process.communicate(timeout=400)
    assert process.returncode == code, err
    return out, err


def known(farm):
    """What run caches hold, and the remote."""
    places = [farm.folder / "cache" / "runs", farm.folder / "shared" / "dvc"]
    return sorted(path for place in places for path in place.rglob("*"))


def ran(farm):
    """The stages that ran, each as often as it did."""
    return (farm.folder / "ran").read_text().split()


def left(farm):
    """What a reproduction needs only to go on."""
    kept = farm.folder / "shared" / "checkpoints"
    refs = subprocess.run(["git", "-C", farm.origin, "for-each-ref", "refs/heads/remint"], capture_output=True).stdout
    return [*farm.orders.store.list("stages/"), *(kept.glob("*") if kept.exists() else ()), *refs.split()]


def test_that_nobody_serves_a_pool_is_said_before_anything_runs(farm, monkeypatch):
    from prefect.settings import PREFECT_API_URL, temporary_settings

    for name, value in farm.environment.items():
        monkeypatch.setenv(name, value)
    chosen = settings.load(farm.clone("desk"))
    said = []

    class Said:
        note = said.append

    with temporary_settings({PREFECT_API_URL: farm.api}), pytest.raises(UserError, match="'cpu'.*remint worker --pool"):
        run.reproduce(chosen, [target.resolve(chosen, "tokenizer@v1")], "scratch", Tolerance(), Said())
    assert said == []
    assert left(farm) == []


def test_workers_make_it_again_to_the_last_byte_although_everything_is_known(served):
    before = known(served)
    out, err = reproduce(served, "--all", "--json")  # the flow that schedules run
    (proof,) = json.loads(out)
    assert proof["verdict"] == "identical"
    assert [(stage["stage"], stage["identical"]) for stage in proof["stages"]] == [
        ("scenes", True),
        ("tokenizer", True),
    ]
    assert proof["models"][0]["weights"]["then"] == proof["models"][0]["weights"]["now"]
    assert proof["environment"]["noted_by_the_run"]
    assert proof["environment"]["differences"] == []
    assert all(stage["host"] and stage["machine"] for stage in proof["stages"])
    assert "on the workers of pool cpu" in err
    assert "restored" not in err
    assert ran(served) == ["scenes", "tokenizer"]
    assert known(served) == before
    assert left(served) == []


@pytest.mark.soak
def test_a_changed_seed_is_different_names_the_stage_and_shows_its_tensors(served):
    out, err = reproduce(served, "tokenizer@v7", code=1)
    assert "scenes of this commit is not what its dvc.lock records: seed: 1 -> 2" in err
    assert "different, first in stage scenes" in out
    assert "artifacts/tokenizer/model/model.safetensors" in out
    assert "not within reach" not in out
    assert ran(served) == ["scenes", "tokenizer"]
    assert left(served) == []


@pytest.mark.soak
def test_a_worker_with_other_packages_refuses_and_nothing_runs(served):
    out, _ = reproduce(served, "tokenizer@v8", code=1)
    assert "this worker's packages are not those of requirements.lock: numpy" in out
    assert "failed. scenes" in out
    assert not (served.folder / "ran").exists()
    assert left(served) == []


@pytest.mark.soak
def test_from_inputs_only_the_models_own_stage_runs(served):
    proof = json.loads(reproduce(served, "maskgit@v1", "--from", "inputs", "--json")[0])
    assert proof["verdict"] == "identical"
    assert ran(served) == ["generator@maskgit"]
    assert left(served) == []


@pytest.mark.soak
def test_a_killed_reproduction_goes_on_on_another_machine_and_runs_nothing_twice(served):
    (served.folder / "wait").touch()
    killed = start(served, "tokenizer@v1")
    until = time.monotonic() + 120
    while not (served.folder / "wait.reached").exists():
        assert time.monotonic() < until
        assert killed.poll() is None, killed.communicate()[1]
        time.sleep(0.1)
    second = start(served, "tokenizer@v1", clone="other")
    assert second.communicate()[1].splitlines()[-1].startswith("error: tokenizer@v1 is being reproduced on ")
    assert second.returncode == 2
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    (served.folder / "wait").unlink()
    out, _ = reproduce(served, "tokenizer@v1", clone="other")
    assert "identical" in out
    assert ran(served) == ["scenes", "tokenizer"]
    assert left(served) == []
