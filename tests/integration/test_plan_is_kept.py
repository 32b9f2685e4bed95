"""What a plan says is what a run does, for every state of dvc.lock, cache, run cache and tags."""

import contextlib
import hashlib
import itertools
import shutil
from pathlib import Path

import pytest
import yaml

from flows import settings
from flows.pipeline import keys, plan, workspace
from flows.pipeline.store import Store
from tests import released

pytestmark = pytest.mark.integration

LOCKS = ("none", "made", "other", "old")  # no entry; what the stage makes; other outputs; of other inputs
CACHES = ("none", "made", "other", "both")  # which outputs it holds
RUNS = ("none", "made", "other")  # which outputs the run cache names for the present inputs
STATES = list(itertools.product(LOCKS, CACHES, RUNS))
NAMES = ["-".join(state) for state in STATES]


def text(name: str, kind: str) -> bytes:
    return f"{kind} by {name}\n".encode()


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def put(root: Path, data: bytes) -> None:
    """An object into DVC's cache."""
    oid = md5(data)
    path = root / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def entry(name: str, kind: str, read: bytes = b"1\n") -> dict:
    """What dvc.lock or the run cache says of an execution."""
    data = text(name, kind)
    dep = {"path": "in.txt", "hash": "md5", "md5": md5(read), "size": len(read)}
    out = {"path": f"out/{name}", "hash": "md5", "md5": md5(data), "size": len(data)}
    return {"cmd": command(name), "deps": [dep], "outs": [out]}


def command(name: str) -> str:
    return f"echo made by {name} > out/{name} && echo {name} >> ran"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a stage for every state; and the state itself."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("made") / "project"
    root.mkdir()
    released.git(root, "init", "-q")
    Repo.init(str(root)).close()
    stages = {name: {"cmd": command(name), "deps": ["in.txt"], "outs": [f"out/{name}"]} for name in NAMES}
    lock = {}
    for name, (locked, cached, ran) in zip(NAMES, STATES, strict=True):
        if locked != "none":
            read = b"0\n" if locked == "old" else b"1\n"
            lock[name] = entry(name, "other" if locked == "other" else "made", read)
        for kind in ("made", "other") if cached == "both" else (cached,):
            if kind != "none":
                put(root, text(name, kind))
        if ran != "none":
            known = entry(name, ran)
            key = keys.of_entry(known)
            path = root / ".dvc" / "cache" / "runs" / key[:2] / key / keys.value_of(known)
            path.parent.mkdir(parents=True)
            path.write_text(yaml.safe_dump(known))
    (root / "in.txt").write_text("1\n")
    (root / "out").mkdir()
    (root / "out" / ".gitignore").write_text("*\n!.gitignore\n")
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (root / "params.yaml").write_text("seed: 1\n")
    (root / ".gitignore").write_text("/.remint/\n/ran\n")
    released.git(root, "add", "-A")
    released.git(root, "commit", "-q", "-m", "Nothing is recorded")
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": lock}, sort_keys=False))
    released.git(root, "add", "-A")
    released.git(root, "commit", "-q", "-m", "Record")
    released.git(root, "tag", "-a", "-m", "x", "run/20260101T000000Z-0000000")
    return root


def expected(locked: str, cached: str, ran: str) -> tuple[str, str]:
    """What is to be done, and whose output lies there afterwards."""
    has = {"none": set(), "both": {"made", "other"}}.get(cached, {cached})
    if locked in ("made", "other") and locked in has:
        return "current", locked
    if ran in has:
        return "restore", ran
    return "run", "made"


@pytest.mark.parametrize("newest", [None, "run/20260101T000000Z-0000000"])
def test_what_was_planned_is_what_is_done(made: Path, tmp_path: Path, newest: str | None) -> None:
    root = tmp_path / "project"
    shutil.copytree(made, root, symlinks=True)
    if newest:  # its dvc.lock counts, whatever the commit's own says
        released.git(root, "reset", "--quiet", "--hard", "HEAD^")
    chosen = settings.load(root)
    with workspace.opened(chosen, released.git(root, "rev-parse", "HEAD"), "20260101T000001Z-0000000") as tree:
        workspace.start_from(chosen, tree, newest)
        store = Store(tree)
        planned = plan.make(store.stages, store)
        store.lay_out(planned)
        store.close()
        done = run(tree, [step.stage for step in planned.steps if step.action == "run"])
        lock = yaml.safe_load((tree / "dvc.lock").read_text())["stages"]
        for name, state in zip(NAMES, STATES, strict=True):
            action, whose = expected(*state)
            assert (name, planned.action(name)) == (name, action)
            assert (name, name in done) == (name, action == "run")
            assert (tree / "out" / name).read_bytes() == text(name, whose)
            assert lock[name]["outs"][0]["md5"] == md5(text(name, whose)), name


def run(tree: Path, names: list[str]) -> list[str]:
    """Each stage as `flows.stage.process` has DVC run it, in this process; returns those whose command ran."""
    from dvc.repo import Repo

    with contextlib.chdir(tree), Repo() as repo:
        for name in names:
            repo.reproduce(name, single_item=True)
    ran = tree / "ran"
    return ran.read_text().split() if ran.exists() else []


def test_an_output_that_git_holds_is_stored_there(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(made, root, symlinks=True)
    stage = {"cmd": "cp in.txt metrics.json", "deps": ["in.txt"], "metrics": [{"metrics.json": {"cache": False}}]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"measure": stage}}))
    (root / "dvc.lock").unlink()
    run(root, ["measure"])
    shutil.rmtree(root / ".dvc" / "cache")  # as in a clone
    released.git(root, "add", "-A")
    released.git(root, "commit", "-q", "-m", "Measure")
    chosen = settings.load(root)
    for held, action in (("1\n", "current"), ("2\n", "run")):
        (root / "metrics.json").write_text(held)
        released.git(root, "commit", "-q", "-a", "--allow-empty", "-m", held)
        with workspace.opened(chosen, released.git(root, "rev-parse", "HEAD"), f"20260101T00000{held[0]}Z-0") as tree:
            store = Store(tree)
            planned = plan.make(store.stages, store)
            store.lay_out(planned)
            store.close()
            assert planned.action("measure") == action


def test_data_that_dvc_tracks_counts_as_it_is_tracked(made: Path, tmp_path: Path) -> None:
    """It lies in the cache until a run begins: what reads it is current all the same."""
    from dvc.repo import Repo

    root = tmp_path / "project"
    shutil.copytree(made, root, symlinks=True)
    (root / "own").mkdir()
    (root / "own" / "a.txt").write_text("data")
    stage = {"cmd": "cp own/a.txt out/copied", "deps": ["own"], "outs": ["out/copied"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"copy": stage}}))
    (root / "dvc.lock").unlink()
    with contextlib.chdir(root), Repo() as repo:
        repo.add("own")
        repo.reproduce()
    released.git(root, "add", "-A")
    released.git(root, "commit", "-q", "-m", "Track data")
    chosen = settings.load(root)
    with workspace.opened(chosen, released.git(root, "rev-parse", "HEAD"), "20260101T000001Z-0000000") as tree:
        store = Store(tree)
        planned = plan.make(store.stages, store)
        store.lay_out(planned)
        store.close()
        assert planned.action("copy") == "current"
        assert (tree / "out" / "copied").read_text() == (tree / "own" / "a.txt").read_text() == "data"
