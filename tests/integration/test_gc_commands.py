"""`remint gc` on whole projects: what goes, what stays, and that a stop in the middle harms nothing."""

import fcntl
import json
import os
import signal
import subprocess
import sys

import pytest

from flows import settings
from flows.garbage import collect, place
from flows.pipeline import workspace

pytestmark = pytest.mark.integration

DYING = """
import os, sys
from pathlib import Path
from flows import settings; from flows.pipeline import workspace
root, head, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with workspace.opened(settings.load(root), head, name) as folder:
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def toy(make_toy, tmp_path, monkeypatch):
    for name in [key for key in os.environ if key.startswith("REMINT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "toy").mkdir()
    made = make_toy(tmp_path / "toy")
    settings.load(made.root).worktrees.mkdir(parents=True)
    return made


@pytest.fixture
def chosen(toy):
    return settings.load(toy.root)


def killed_run(toy, name="20260101T000000Z-dead000"):
    died = subprocess.run([sys.executable, "-c", DYING, str(toy.root), toy.git("rev-parse", "HEAD"), name], check=False)
    assert died.returncode == -signal.SIGKILL
    return name


def found(chosen, grace=0.0):
    return {(item.kind, item.what) for item in collect.plan(chosen, grace).found}


def aged(path, seconds=7200):
    """Make a file look as if it had been written long ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.exists() or path.write_text("x" * 100)
    stamp = path.stat().st_mtime - seconds
    os.utime(path, (stamp, stamp))
    return path


def test_the_command_shows_by_default_and_removes_on_request_and_then_finds_nothing(toy, chosen):
    name = killed_run(toy)
    partial = aged(chosen.home / "runs" / "r1" / "run.json.new", 1e6)
    shown = toy.remint("gc", "--json")
    assert shown.returncode == 0, shown.stderr
    assert {item["kind"] for item in json.loads(shown.stdout)["found"]} == {"worktree", "scratch"}
    assert partial.exists()
    done = toy.remint("gc", "--apply")
    assert done.returncode == 0, done.stderr
    assert f"removed worktree {chosen.worktrees / name}" in done.stdout
    assert "2 removed" in done.stdout
    assert not partial.exists()
    assert not (chosen.worktrees / name).exists()
    assert toy.git("worktree", "list").count("\n") == 0
    assert toy.remint("gc", "--apply").stdout == "Nothing to collect.\n"


def test_a_living_run_keeps_its_worktree_and_everything_it_may_come_to_refer_to(toy, chosen):
    stale = aged(chosen.home / "checkpoints" / f"left-{'a' * 16}" / "last.ckpt")
    own = aged(chosen.home / "runs" / "20260101T000001Z-aaaaaaa" / "x.partial")
    lone = aged(toy.root / ".dvc/cache/files/md5/00" / ("1" * 30))
    with workspace.opened(chosen, toy.git("rev-parse", "HEAD"), own.parent.name) as folder:
        collection = collect.apply(chosen, 0.0, lambda item: None)
        assert collection.found == []
        assert set(collection.left_alone) == {"checkpoint", "tracking", "bundle", "cache object"}
        assert own.parent.name in collection.left_alone["cache object"]
        assert all(path.exists() for path in (stale, own, lone, folder))
    assert {item.what for item in collect.apply(chosen, 0.0, lambda item: None).found} >= {str(stale.parent), str(lone)}
    assert not any(path.exists() for path in (stale, own, lone))


def test_what_was_written_within_the_grace_period_stays(chosen):
    young = aged(chosen.home / "checkpoints" / f"left-{'a' * 16}" / "last.ckpt", 3000)
    old = aged(chosen.home / "checkpoints" / f"left-{'b' * 16}" / "last.ckpt", 4000)
    os.utime(old.parent, (old.stat().st_mtime, old.stat().st_mtime))
    assert found(chosen, 3600.0) == {("checkpoint", str(old.parent))}
    assert found(chosen, 1e9) == set()
    os.utime(young, (young.stat().st_mtime + 1e6,) * 2)  # written while the clock was ahead
    assert ("checkpoint", str(young.parent)) not in found(chosen, 3600.0)


def test_what_an_abandoned_reproduction_kept_goes_as_one(chosen):
    place = chosen.home / "checkpoints" / f"reproduce-{'a' * 16}"
    old = aged(place / ("b" * 16) / f"left-{'c' * 16}" / "last.ckpt", 4000)
    young = aged(place / ("d" * 16) / f"right-{'e' * 16}" / "last.ckpt", 3000)
    assert found(chosen, 3600.0) == set()
    for path in place.rglob("*"):
        os.utime(path, (old.stat().st_mtime,) * 2)
    os.utime(place, (old.stat().st_mtime,) * 2)
    assert found(chosen, 3600.0) == {("checkpoint", str(place))}
    assert young.exists()


def test_a_link_is_removed_and_what_it_points_to_stays(chosen, tmp_path):
    precious = aged(tmp_path / "elsewhere" / "precious.partial")
    (chosen.home / "runs").symlink_to(precious.parent)
    (chosen.home / "checkpoints").mkdir()
    inner = chosen.home / "checkpoints" / f"left-{'c' * 16}"
    inner.symlink_to(precious.parent)
    deep = chosen.home / "gates-x1"
    deep.mkdir()
    (deep / "link").symlink_to(precious.parent)
    collection = collect.apply(chosen, 0.0, lambda item: None)
    assert {item.what for item in collection.found} == {str(inner), str(deep)}
    assert sum(item.bytes for item in collection.found) < 1000
    assert not inner.is_symlink()
    assert precious.exists()


@pytest.mark.parametrize("path", ["../outside", "runs/../../outside", "link/file", "."])
def test_no_path_that_leads_out_of_the_home_is_removed(tmp_path, path):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("x")
    (home / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(place.UserError, match="leads out of"):
        place.remove(home / path, home)
    assert (tmp_path / "outside" / "file").exists()
    assert home.exists()


def test_a_killed_reproduction_keeps_its_logs_and_a_working_one_everything(toy, chosen):
    killed, working = (chosen.home / "reproductions" / f"reproduce-{mark * 12}" for mark in "ab")
    for folder in (killed, working):
        for name in ("cache/files/md5/00/1", "checkpoints/left-0/1", "environment.json", "logs/left.log"):
            aged(folder / name)
    with workspace.opened(chosen, toy.git("rev-parse", "HEAD"), working.name):
        assert found(chosen) == {("scratch", str(killed / n)) for n in ("cache", "checkpoints", "environment.json")}
        collect.apply(chosen, 0.0, lambda item: None)
    assert [path.name for path in killed.iterdir()] == ["logs"]
    assert len(list(working.iterdir())) == 4


def test_what_killed_gates_and_pulls_left_and_evaluations_that_can_be_repeated_go(chosen):
    aged(chosen.home / "gates-x1" / "tokenizer" / "model.safetensors")
    aged(chosen.home / "evaluations" / ("a" * 64) / "metrics.json")
    aged(chosen.home / "evaluations" / f".{'b' * 32}" / "out" / "metrics.json")
    aged(chosen.home / "production" / "bundles" / f".model.safetensors.{'c' * 32}")
    aged(chosen.home / "production" / "bundles" / "kept.json")
    aged(chosen.home / "pulled.partial" / "tokenizer" / "model.safetensors.partial")
    aged(chosen.home / "models" / "images.partial" / "release.json")
    assert len(found(chosen)) == 6
    collect.apply(chosen, 0.0, lambda item: None)
    assert sorted(path.name for path in (chosen.home / "production" / "bundles").iterdir()) == ["kept.json"]


def test_what_cannot_be_removed_is_named_and_the_rest_goes(toy, chosen, monkeypatch):
    stuck = aged(chosen.home / "runs" / "r1" / "a.partial")
    loose = aged(chosen.home / "runs" / "r2" / "b.partial")
    remove = place.remove

    def refuse(path, home):
        if path == stuck:
            raise PermissionError(13, "Permission denied", str(path))
        remove(path, home)

    monkeypatch.setattr("flows.garbage.scratch.remove", refuse)
    collection = collect.apply(chosen, 0.0, lambda item: None)
    assert list(collection.failed) == [str(stuck)]
    assert not loose.exists()


def test_two_collections_take_turns(chosen):
    with (chosen.worktrees / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-c", "from flows.cli import main; main()", "gc", "--apply"]
        with subprocess.Popen(command, cwd=chosen.root, stdout=subprocess.PIPE, text=True) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(3)
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert second.communicate(timeout=60)[0] == "Nothing to collect.\n"


@pytest.mark.parametrize("words", [["--older-than", "-1"], ["--older-than", "soon"], ["--aply"]])
def test_a_wrong_option_is_one_line_and_exit_code_2(toy, words):
    done = toy.remint("gc", *words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
