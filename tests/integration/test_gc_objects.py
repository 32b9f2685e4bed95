"""DVC's cache after a collection: exactly what something reaches is there, whatever the history looks like."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from flows import settings
from flows.garbage import collect
from flows.release import pointers
from flows.release.pointers import Member, Pointer
from flows.storage import bucket

pytestmark = pytest.mark.integration


@pytest.fixture
def toy(make_toy, tmp_path, monkeypatch):
    for name in [key for key in os.environ if key.startswith("REMINT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "toy").mkdir()
    made = make_toy(tmp_path / "toy")
    settings.load(made.root).worktrees.mkdir(parents=True)
    return made


class Cache:
    """A cache of made-up objects, and which of them each one holds."""

    def __init__(self, root: Path, rng: random.Random, count: int) -> None:
        self.folder, self.rng = root / ".dvc" / "cache", rng
        self.holds: dict[str, list[str]] = {}
        single = [self._add(rng.randbytes(20), "") for _ in range(count)]
        for _ in range(count // 3):
            inside = rng.sample(single, rng.randint(1, 4))
            listed = [{"md5": name, "relpath": f"{i}.tar"} for i, name in enumerate(inside)]
            self.holds[self._add(json.dumps(listed).encode(), ".dir")] = inside
        self.names = [*single, *self.holds]

    def _add(self, data: bytes, ending: str) -> str:
        name = hashlib.md5(data).hexdigest() + ending
        path = self.folder / "files" / "md5" / name[:2] / name[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return name

    def there(self) -> set[str]:
        return {path.parent.name + path.name for path in self.folder.glob("files/md5/??/*")}

    def some(self) -> list[str]:
        return self.rng.sample(self.names, self.rng.randint(0, 3))

    def closure(self, named: set[str]) -> set[str]:
        return named | {inner for name in named for inner in self.holds.get(name, [])}

    def remember(self, named: list[str]) -> None:
        """An entry of the run cache."""
        key = hashlib.sha256(self.rng.randbytes(8)).hexdigest()
        path = self.folder / "runs" / key[:2] / key / key
        path.parent.mkdir(parents=True)
        path.write_text(lock(named))


def lock(named: list[str]) -> str:
    return "".join(f"- path: artifacts/{i}\n  hash: md5\n  md5: {name}\n  size: 20\n" for i, name in enumerate(named))


def release(chosen, number: int, commit: str) -> None:
    where = bucket.at(chosen.production)
    before = pointers.newest(where, "images")
    member = Member("tokenizer", 1, "0" * 64, "tokenizer@v1.0.0", "1" * 64)
    previous = pointers.digest(before) if before else ""
    pointers.append(where, Pointer("images", number, (member,), "r", commit, "me", "test", "2026-01-01", previous))


def history(toy, chosen, cache: Cache) -> set[str]:
    """Random commits under tags, branches, releases or nothing; returns what they and the run cache reach."""
    rng, named, released = cache.rng, set(), 0
    for i in range(12):
        mine = cache.some()
        (toy.root / rng.choice(["dvc.lock", "photos.dvc", "sub/dvc.lock"])).write_text(lock(mine))
        toy.git("add", "--all")
        toy.git("commit", "--quiet", "--allow-empty", "--message", f"c{i}")
        every = {word for path in toy.git("ls-files", "*.dvc", "*dvc.lock").split() for word in words(toy, path)}
        how = rng.choice(["tag", "annotated", "branch", "release", "nothing", "nothing", "nothing"])
        named |= every if how != "nothing" else set()
        if how == "tag":
            toy.git("tag", f"t{i}")
        elif how == "annotated":
            toy.git("tag", "--annotate", "--message", "x", f"run/{i}")
        elif how == "branch":
            toy.git("branch", f"b{i}")
        elif how == "release":
            released += 1
            release(chosen, released, toy.git("rev-parse", "HEAD"))
    for _ in range(3):
        entry = cache.some()
        cache.remember(entry)
        named |= set(entry)
    head = {word for path in toy.git("ls-files", "*.dvc", "*dvc.lock").split() for word in words(toy, path)}
    draft = cache.some()
    (toy.root / "draft.dvc").write_text(lock(draft))  # not added to git yet
    return cache.closure(named | head | set(draft))


def words(toy, path: str) -> list[str]:
    lines = (toy.root / path).read_text().splitlines()
    return [line.split()[-1] for line in lines if line.startswith("  md5: ")]


def check(toy, seed: int) -> None:
    (toy.root / "sub").mkdir()
    chosen = settings.load(toy.root)
    cache = Cache(toy.root, random.Random(seed), 60)
    reached = history(toy, chosen, cache)
    everything = cache.there()
    planned = {item.what for item in collect.plan(chosen, 0.0).found}
    assert cache.there() == everything
    collection = collect.apply(chosen, 0.0, lambda item: None)
    assert not collection.left_alone
    assert {item.what for item in collection.found} == planned
    assert cache.there() == reached & everything
    assert 0 < len(cache.there()) < len(everything)
    assert collect.plan(chosen, 0.0).found == []


@pytest.mark.parametrize("seed", range(3))
def test_exactly_what_is_reached_survives(toy, seed):
    check(toy, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3, 60))
def test_exactly_what_is_reached_survives_in_many_histories(toy, seed):
    check(toy, seed)


def test_a_kill_in_the_middle_harms_nothing_and_the_next_collection_completes_it(toy):
    (toy.root / "sub").mkdir()
    chosen = settings.load(toy.root)
    cache = Cache(toy.root, random.Random(7), 200)
    reached = history(toy, chosen, cache) & cache.there()
    process = toy.start("gc", "--apply", "--older-than", "0")
    for _ in range(5):
        assert process.stdout.readline().startswith("removed cache object ")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert cache.there() > reached
    done = toy.remint("gc", "--apply", "--older-than", "0")
    assert done.returncode == 0, done.stderr
    assert cache.there() == reached


def test_outputs_of_a_tag_can_be_checked_out_afterwards_and_others_are_gone(toy, monkeypatch):
    from dvc.repo import Repo

    monkeypatch.chdir(toy.root)  # DVC means the stages of the folder it is in

    def stored(repo):
        return {path for path in Path(repo.cache.local.path).rglob("*") if path.is_file()}

    with Repo(str(toy.root)) as repo:
        repo.reproduce()
        toy.git("add", "dvc.lock")
        toy.git("commit", "--quiet", "--message", "Record")
        toy.git("tag", "run/1")
        tagged, before = stored(repo), (toy.root / "artifacts/end/text.txt").read_text()
        params = (toy.root / "params.yaml").read_text()
        (toy.root / "params.yaml").write_text(params.replace("base: 1 ", "base: 2 "))
        repo.reproduce()
        assert stored(repo) > tagged
        toy.git("checkout", "--quiet", "--", "dvc.lock", "params.yaml")
        collect.apply(settings.load(toy.root), 0.0, lambda item: None)
        assert stored(repo) > tagged  # the run cache still reaches them
        shutil.rmtree(toy.root / ".dvc" / "cache" / "runs")
        collect.apply(settings.load(toy.root), 0.0, lambda item: None)
        assert stored(repo) == tagged
    shutil.rmtree(toy.root / "artifacts")
    subprocess.run(["dvc", "checkout", "--quiet", "--force"], cwd=toy.root, check=True, capture_output=True)
    assert (toy.root / "artifacts/end/text.txt").read_text() == before


def test_a_stage_that_somebody_runs_with_dvc_is_not_disturbed(toy):
    Cache(toy.root, random.Random(1), 5)
    held = {"write": {str(toy.root / "artifacts"): {"pid": os.getpid(), "cmd": "dvc repro left"}}, "read": {}}
    (toy.root / ".dvc/tmp").mkdir(exist_ok=True)
    (toy.root / ".dvc/tmp/rwlock").write_text(json.dumps(held))
    collection = collect.plan(settings.load(toy.root), 0.0)
    assert "`dvc repro left` is working" in collection.left_alone["cache object"]
    held["write"][str(toy.root / "artifacts")]["pid"] = 2**22 + 1  # nobody's
    (toy.root / ".dvc/tmp/rwlock").write_text(json.dumps(held))
    assert len(collect.plan(settings.load(toy.root), 0.0).found) == 6


def test_a_cache_that_other_projects_may_use_is_left_alone(toy, tmp_path):
    Cache(toy.root, random.Random(1), 5)
    shutil.move(toy.root / ".dvc/cache", tmp_path / "shared")
    (toy.root / ".dvc/cache").symlink_to(tmp_path / "shared")
    collection = collect.apply(settings.load(toy.root), 0.0, lambda item: None)
    assert "other projects may use it" in collection.left_alone["cache object"]
    assert len(list((tmp_path / "shared").rglob("*"))) > 6


@pytest.mark.parametrize("damage", ["folder", "history", "releases"])
def test_nothing_is_removed_where_a_reference_cannot_be_read(toy, damage):
    chosen = settings.load(toy.root)
    cache = Cache(toy.root, random.Random(2), 12)
    folder = next(iter(cache.holds))
    (toy.root / "dvc.lock").write_text(lock([folder]))
    toy.git("add", "--all")
    toy.git("commit", "--quiet", "--message", "Record")
    toy.git("tag", "run/1")
    if damage == "folder":
        (cache.folder / "files/md5" / folder[:2] / folder[2:]).write_text("[{")
    elif damage == "history":
        blob = toy.git("rev-parse", "HEAD:dvc.lock")
        (toy.root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    else:
        release(chosen, 1, "0" * 40)
        (chosen.home / "production/releases/images/000001.json").write_text("{}")
    before = cache.there()
    collection = collect.apply(chosen, 0.0, lambda item: None)
    assert "cache object" in collection.left_alone
    assert not [item for item in collection.found if item.kind == "cache object"]
    assert cache.there() == before
