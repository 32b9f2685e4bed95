"""The whole tiny chain under `portable: true`: one dvc.lock, whatever processor the libraries take this one for."""

import sys

import pytest

from flows.pipeline import parameters
from tests import processors
from tests.e2e.test_the_whole_chain import repository, sh

pytestmark = [pytest.mark.e2e, pytest.mark.soak, pytest.mark.timeout(3600)]


def lock(folder, processor: str, portable: bool) -> bytes:
    """What the chain wrote, run without server or cache by a process of that processor."""
    folder.mkdir()
    root = repository(folder)
    parameters.apply(root, parameters.changes(root, "tiny", [f"portable={str(portable).lower()}"]))
    sh(root, sys.executable, "-m", "dvc", "repro", "--quiet", **processors.PROCESSORS[processor])
    return (root / "dvc.lock").read_bytes()


def test_the_whole_lock_is_the_same_on_three_processors(tmp_path):
    locks = {name: lock(tmp_path / name, name, portable=True) for name in processors.PROCESSORS}
    assert len(set(locks.values())) == 1


def test_without_it_the_locks_of_two_processors_differ(tmp_path):
    one, other = "AMD with AVX2", "Intel with AVX-512"
    processors.needs(other)
    assert lock(tmp_path / one, one, portable=False) != lock(tmp_path / other, other, portable=False)
