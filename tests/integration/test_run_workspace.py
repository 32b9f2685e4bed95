"""Worktrees of runs: shared cache, the newest run's dvc.lock, and what dead runs leave is removed."""

import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from data.core.params import UserError
from flows import settings
from flows.pipeline import workspace
from flows.retrain import launch

pytestmark = pytest.mark.integration

DYING = """
import os, subprocess, sys
from pathlib import Path
from flows import settings; from flows.pipeline import workspace
root, head = Path(sys.argv[1]), sys.argv[2]
with workspace.opened(settings.load(root), head, "20260101T000000Z-dead000") as folder:
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(["sleep", "3145"], cwd=folder, start_new_session=True, **quiet)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def toy(make_toy, tmp_path_factory):
    return make_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def chosen(toy, monkeypatch):
    monkeypatch.delenv("REMINT_HOME", raising=False)
    return settings.load(toy.root)


def test_a_worktree_uses_the_cache_of_the_main_checkout_and_is_removed(toy, chosen):
    from dvc.repo import Repo

    with workspace.opened(chosen, toy.git("rev-parse", "HEAD"), "20260101T000001Z-aaaaaaa") as root:
        with Repo(str(root)) as repo:
            assert repo.cache.local.path == str(toy.root / ".dvc" / "cache" / "files" / "md5")
            assert repo.cache.local.cache_types == ["reflink", "hardlink", "copy"]
        assert workspace.living(chosen) == {root.name}
    assert workspace.living(chosen) == set()
    assert not root.exists()
    assert toy.git("worktree", "list").count("\n") == 0


def test_what_a_killed_run_left_is_removed_by_the_next_with_its_processes(toy, chosen):
    head = toy.git("rev-parse", "HEAD")
    died = subprocess.run([sys.executable, "-c", DYING, str(toy.root), head], check=False)
    assert died.returncode == -signal.SIGKILL
    left = chosen.worktrees / "20260101T000000Z-dead000"
    assert left.is_dir()
    with workspace.opened(chosen, head, "20260101T000002Z-bbbbbbb"):
        assert not left.exists()
        assert "sleep 3145" not in os.popen("ps -eo args").read()
    assert sorted(path.name for path in chosen.worktrees.iterdir()) == [".lock"]


def test_the_lock_of_the_newest_run_is_what_a_run_starts_from(toy, chosen):
    toy.git("checkout", "--quiet", "--detach")
    (toy.root / "dvc.lock").write_text("schema: '2.0'\nstages: {}\n")
    toy.git("add", "dvc.lock")
    toy.git("commit", "--quiet", "--message", "Record")
    toy.git("tag", "--annotate", "--message", "Run", "run/20260101T000003Z-ccccccc")
    toy.git("checkout", "--quiet", "-")
    with workspace.opened(chosen, toy.git("rev-parse", "HEAD"), "20260101T000004Z-ddddddd") as root:
        assert not (root / "dvc.lock").exists()
        workspace.start_from(chosen, root, "run/20260101T000003Z-ccccccc")
        assert (root / "dvc.lock").read_text() == "schema: '2.0'\nstages: {}\n"


def test_the_lock_is_written_in_the_order_of_the_graph_without_stages_that_are_gone(tmp_path):
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\nstages:\n  b: {cmd: b}\n  gone: {cmd: x}\n  a: {cmd: a}\n")
    workspace.order_lock(tmp_path, ["a", "b", "never-ran"])
    lines = (tmp_path / "dvc.lock").read_text().splitlines()
    assert [line for line in lines if line.startswith("  ") and line.endswith(":")] == ["  a:", "  b:"]


@pytest.fixture
def job(toy, chosen):
    chosen.home.mkdir(exist_ok=True)
    return SimpleNamespace(settings=chosen, run=SimpleNamespace(workspace=toy.root))


def test_a_machine_that_can_take_a_run_passes(job):
    launch.check(job)


def test_a_full_disk_is_said_before_anything_runs(job, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=200 << 20))
    with pytest.raises(UserError, match=r"has 200 MB left; a run needs 1024 MB: free some space"):
        launch.check(job)


def test_a_folder_without_permission_is_said_before_anything_runs(job, monkeypatch):
    monkeypatch.setattr(os, "access", lambda folder, mode: False)  # root may write everywhere
    with pytest.raises(UserError, match=r"cannot be written to; correct its permissions"):
        launch.check(job)


def test_a_promotion_policy_with_a_mistake_is_said_before_anything_runs(job, toy):
    (toy.root / "mlflow" / "promotion.yaml").write_text("tokenizer: {required: [psnr]}\n")
    with pytest.raises(UserError, match=r"promotion.yaml: 'tokenizer' is not a model of dvc.yaml"):
        launch.check(job)
    toy.git("checkout", "--quiet", "mlflow/promotion.yaml")


def test_runs_that_start_in_the_same_second_each_get_a_worktree_of_their_own(make_toy, tmp_path):
    toy = make_toy(tmp_path)
    started = [toy.start("retrain", "--plan") for _ in range(5)]
    assert [(process.communicate(timeout=120)[1], process.returncode) for process in started] == [("", 0)] * 5
