"""Whole runs on real workers: a Prefect server, an origin, machines with a clone each."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.pipeline import environment
from tests import chain, released, workers

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def remint(root: Path, *arguments: str, **variables: str) -> subprocess.Popen:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=root, env=workers.foreign(os.environ) | variables, text=True, **pipes)


def done(process: subprocess.Popen, code: int = 0) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return out if code == 0 else err


def lock_of_newest(root: Path) -> str:
    tag = released.git(root, "for-each-ref", "--sort=-refname", "--count=1", "--format=%(refname)", "refs/tags/run/")
    return released.git(root, "show", f"{tag}:dvc.lock")


@pytest.fixture
def farm(prefect_server, tmp_path):
    """Machines around the chain of small models; they share one production, one registry and one catalogue."""
    source = tmp_path / "source"
    chain.make(source, pace=0.05, steps=3)
    shared = {"REMINT_PRODUCTION": str(tmp_path / "production"), "REMINT_CATALOGUE": f"sqlite:///{tmp_path / 'c.db'}"}
    with workers.farm(tmp_path, source, prefect_server.api, **shared) as made:
        yield made


def test_a_pool_that_is_not_there_or_that_nobody_serves_is_said_before_anything_runs(farm):
    root = farm.clone("desk")
    text = (root / "dvc.yaml").read_text()
    (root / "dvc.yaml").write_text(text.replace("pool: cpu", "pool: cpuu"))
    released.git(root, "commit", "-q", "-a", "-m", "Misspell a pool")
    assert "there is no work pool" in done(remint(root, "retrain", **farm.environment), 2)
    worker = farm.start("cpu")
    assert "there is no work pool 'cpuu'; did you mean 'cpu'?" in done(remint(root, "retrain", **farm.environment), 2)
    released.git(root, "reset", "-q", "--hard", "origin/HEAD")
    began = time.monotonic()
    assert "no worker serves pool 'gpu' now" in done(remint(root, "retrain", **farm.environment), 2)
    assert time.monotonic() - began < 30
    worker.end()
    assert "refs/heads/remint/" not in released.git(farm.origin, "for-each-ref")


@pytest.mark.soak
def test_a_run_on_two_workers_writes_the_lock_of_a_run_here(farm, tmp_path):
    """And everybody knows of it: another machine has nothing to do, not even with a worker."""
    here = tmp_path / "here"
    chain.make(here, pace=0.05, steps=3)
    done(remint(here, "retrain"))
    farm.start("cpu"), farm.start("gpu")
    desk = farm.clone("desk")
    result = json.loads(done(remint(desk, "retrain", "--json", **farm.environment)))
    assert {stage["action"] for stage in result["stages"]} == {"ran"}
    assert lock_of_newest(desk) == lock_of_newest(here)
    assert farm.orders.store.list("stages/") == []
    refs = released.git(farm.origin, "for-each-ref", "--format=%(refname:strip=2)").split()
    assert {result["tag"], "tokenizer@v1.0.0", "depth-small#production#1"} <= set(refs)
    assert not [name for name in refs if name.startswith("remint/")]
    for worker in farm.workers:
        worker.end()
    assert "Nothing to do: all 8 stages" in done(remint(farm.clone("other"), "retrain", **farm.environment))


@pytest.mark.soak
def test_what_workers_made_workers_make_again_each_stage_in_the_environment_that_it_had(farm):
    """With thread counts as they were, whatever those of the workers are that make it again."""
    farm.start("cpu", OMP_NUM_THREADS="1"), farm.start("gpu", OMP_NUM_THREADS="2")
    desk = farm.clone("desk")
    run = json.loads(done(remint(desk, "retrain", "--json", **farm.environment)))
    noted = environment.of_stages(desk, run["tag"], [stage["stage"] for stage in run["stages"]])
    assert {one.variables["OMP_NUM_THREADS"] for one in noted.values()} == {"1", "2"}
    for worker in farm.workers:
        worker.end()
    farm.start("cpu", OMP_NUM_THREADS="3"), farm.start("gpu", OMP_NUM_THREADS="4", MKL_CBWR="COMPATIBLE")
    other = farm.clone("other")
    proof = json.loads(done(remint(other, "reproduce", "depth-teacher@production", "--json", **farm.environment)))
    assert [(stage["stage"], stage["identical"]) for stage in proof["stages"]] == [
        ("scenes", True),
        ("depth-teacher", True),
    ]
    assert proof["environment"]["differences"] == []
    assert all(stage["host"] for stage in proof["stages"])
    assert farm.orders.store.list("stages/") == []


@pytest.mark.soak
def test_a_killed_run_is_taken_over_by_another_machine_and_two_at_once_are_one(farm):
    farm.start("cpu"), farm.start("gpu")
    one, two = farm.clone("one"), farm.clone("two")
    first = remint(one, "retrain", "--set", "pace=0.3", **farm.environment)
    second = remint(two, "retrain", "--set", "pace=0.3", **farm.environment)
    while first.poll() is None and second.poll() is None:
        time.sleep(0.2)
    late, killed = (first, second) if first.poll() is not None else (second, first)
    assert "nothing was started here" in late.communicate()[1]
    assert late.returncode == 0
    for line in killed.stderr:
        if "tokenizer: started" in line:
            break
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    root = one if late is first else two
    result = json.loads(done(remint(root, "retrain", "--json", "--set", "pace=0.3", **farm.environment)))
    assert {stage["stage"]: stage["action"] for stage in result["stages"]}["scenes"] == "restored"
    assert [family["release"]["number"] for family in result["families"]] == [1, 1]
    assert farm.orders.store.list("stages/") == []
    with farm.client() as client:
        states = {run.name: run.state.name for run in client.read_flow_runs() if run.state}
    assert states[result["run"]] == "Completed"
    assert "Running" not in states.values()
