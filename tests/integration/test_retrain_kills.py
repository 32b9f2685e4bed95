"""`remint retrain` killed at any instant: old or new release everywhere, and the next run ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.release import stores
from flows.server import connect
from flows.settings import child_environment
from tests import chain, released

pytestmark = pytest.mark.integration

OLD, NEW = {"images": 1, "depth": 1}, {"images": 2, "depth": 2}


def start(root: Path, *words: str, **variables: str) -> subprocess.Popen:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *words]
    known = {key: value for key, value in os.environ.items() if not key.startswith(("REMINT_", "PREFECT_"))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=root, env=known | variables, text=True, start_new_session=True, **pipes)


def remint(root: Path, *words: str, **variables: str) -> str:
    process = start(root, *words, **variables)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chain with its first run released, to be copied."""
    root = tmp_path_factory.mktemp("chain") / "project"
    chain.make(root, pace=0.02, steps=3)
    remint(root, "retrain")
    return root


@pytest.fixture(scope="module")
def second(first: Path, tmp_path_factory: pytest.TempPathFactory, api: str) -> tuple[str, float]:
    """What an undisturbed second run writes into dvc.lock, and how long it takes."""
    root = released.copied(first, tmp_path_factory.mktemp("second") / "project").root
    began = time.monotonic()
    remint(root, "retrain", "--set", "seed=2", REMINT_PREFECT_API=api)
    return newest_lock(root), time.monotonic() - began


@pytest.fixture(scope="module")
def api(first: Path) -> Iterator[str]:
    """A Prefect server that no kill reaches: a run then spends its time on what is tested here."""
    chosen = released.Settings(root=first)
    with connect.borrowed(chosen, child_environment(chosen)) as address:
        yield address


def newest_lock(root: Path) -> str:
    newest = released.git(root, "for-each-ref", "--sort=-refname", "--format=%(refname:short)", "refs/tags/run/")
    return released.git(root, "show", f"{newest.splitlines()[0]}:dvc.lock")


def standing(root: Path) -> dict[str, int]:
    """The number of each family's release; that bucket, catalogue, MLflow and git say the same is asserted."""
    with stores.opened(released.Settings(root=root)) as places:
        return {family: released.places_agree(places, family) for family in OLD}


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kills", [50])
def test_a_run_killed_at_any_instant_loses_nothing(first, second, api, tmp_path, kills):
    lock, seconds = second
    seeded = random.Random(kills)
    for number in range(kills):
        root = released.copied(first, tmp_path / str(number)).root
        process = start(root, "retrain", "--set", "seed=2", REMINT_PREFECT_API=api)
        moment = seeded.uniform(0.1, seconds)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        remint(root, "doctor", "--repair", REMINT_PREFECT_API=api)
        found = standing(root)
        assert all(found[family] in (OLD[family], NEW[family]) for family in found), (number, moment, found)
        remint(root, "retrain", "--set", "seed=2", REMINT_PREFECT_API=api)
        assert standing(root) == NEW, (number, moment)
        assert newest_lock(root) == lock, (number, moment)
        assert not [path for path in (root / ".remint/worktrees").glob("*") if path.name != ".lock"], (number, moment)
