"""Locks of files, which end with their process."""

import subprocess
import sys
from pathlib import Path

import pytest

from data.core import locks

HOLDER = "import sys, time; from data.core import locks; f = locks.take(__import__('pathlib').Path(sys.argv[1]))"
HOLDER += "; print('held', flush=True); time.sleep(60)"


def test_a_lock_is_held_until_its_process_dies_however_it_dies(tmp_path):
    path = tmp_path / "a.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert locks.is_held(path)
    with pytest.raises(BlockingIOError):
        locks.take(path, wait=False)
    holder.kill()
    holder.communicate()
    assert not locks.is_held(path)
    with locks.held(path):
        assert locks.is_held(path)


def test_a_lock_file_that_is_not_there_is_made_by_who_takes_it_and_not_by_who_asks(tmp_path):
    path = tmp_path / "a.lock"
    with pytest.raises(FileNotFoundError):
        locks.is_held(path)
    locks.take(path).close()
    assert not locks.is_held(path)


def test_those_who_share_a_lock_keep_out_who_wants_it_alone(tmp_path):
    path = tmp_path / "a.lock"
    with locks.take(path, shared=True), locks.take(path, shared=True, wait=False):
        assert locks.is_held(path)
    assert not locks.is_held(path)
