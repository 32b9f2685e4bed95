"""`remint pull` as people call it: without a clone, killed at any instant, on a disk that fills up."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from data.core.params import UserError
from flows import cli
from flows.release import pointers
from flows.release.pointers import Pointer
from flows.release.pull import holds, pull
from flows.storage import bucket as buckets
from flows.storage import swap
from flows.storage.protocol import Bucket

pytestmark = pytest.mark.integration
# A plain child of this process would inherit the locks and threads that other tests left.
SPAWN = multiprocessing.get_context("forkserver")
# of Python's audit events, those at which a pull changes the disk or is about to
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock", "shutil.rmtree")


@pytest.fixture
def bucket(production: str) -> Bucket:
    return buckets.at(production)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / "images"


def remint(*words: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`remint ...` in a process that knows of no clone, and that cannot import what a pull must not need."""
    forbidden = ("mlflow", "dvc", "sqlalchemy", "prefect", "torch", "flows.repository")
    code = f"import sys; sys.modules.update(dict.fromkeys({forbidden!r})); from flows.cli import main; main()"
    known = {name: value for name, value in os.environ.items() if not name.startswith("REMINT_")}
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env=known | variables, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_command_needs_no_clone_and_says_what_it_brought(bucket, production, publish, target, tmp_path):
    release = publish(bucket, "images", {"maskgit": 2, "tokenizer": 1})
    done = remint("pull", "images@production", target, "--json", cwd=tmp_path, REMINT_PRODUCTION=production)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["family"], told["number"], told["new"], told["folder"]) == ("images", 1, True, str(target))
    assert [model["weights"] for model in told["models"]] == [member.weights for member in release.members]
    files = [
        path for path in target.rglob("*") if path.is_file() and path.name not in ("release.json", "manifest.json")
    ]
    assert told["bytes"] == sum(path.stat().st_size for path in files)
    assert holds(target, release)
    again = remint("pull", "images@1", target, cwd=tmp_path, REMINT_PRODUCTION=production)
    assert again.returncode == 0
    assert again.stdout.splitlines()[-1].startswith(f"images@1 was already in {target}: 0.0 MB, every digest verified")


@pytest.mark.parametrize(
    ("words", "production", "line"),
    [
        (("image@production", "x"), "bucket", "no family 'image' in .*; did you mean 'images'"),
        (("images@latest", "x"), "bucket", "images@production or images@12"),
        (("images@2", "x"), "bucket", "the newest is images@1"),
        (("images@production", "x"), "none", "none holds no release yet"),
        (("images@production", "x"), "ftp://x", "neither a folder nor s3://bucket/prefix"),
        (("images@production", "."), "bucket", "is where you stand"),
        (("images@production", "x"), "", "is not in a git repository.*or say where production is: REMINT_PRODUCTION"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, publish, monkeypatch, words, production, line):
    publish(buckets.at(str(tmp_path / "bucket")), "images", {"tokenizer": 1})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(
        "REMINT_PRODUCTION", str(tmp_path / production) if production in ("bucket", "none") else production
    )
    done = CliRunner().invoke(cli.main, ["pull", *words])
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(f"error: .*{line}.*\n", done.stderr)
    assert not (tmp_path / "x").exists()


def pull_and_die(address: str, target: Path, instant: int, atomic: bool, told: Any) -> None:
    """Pull, and die of SIGKILL at the given touch of the disk; tells how many touches there were if it lives."""
    touches = 0

    def touch(event: str, arguments: Any) -> None:
        nonlocal touches
        if event in TOUCHES:
            touches += 1
            if touches == instant:
                os.kill(os.getpid(), signal.SIGKILL)

    if not atomic:
        swap.exchange = lambda one, other: False  # type: ignore[assignment]
    bucket = buckets.at(address)
    bucket.list("")
    sys.addaudithook(touch)
    pull(bucket, "images", None, target, lambda done, size: touch("open", None))
    told.put(touches)


def die_at_every(
    instants: Callable[[int], list[int]], address: str, target: Path, atomic: bool, old: Pointer | None, new: Pointer
) -> None:
    """Kill a pull of `new` over `old` at each of the instants; afterwards all must be old or new, and then new."""
    told: Any = SPAWN.SimpleQueue()

    def attempt(instant: int) -> int | None:
        shutil.rmtree(target.parent)
        target.parent.mkdir()
        if old:
            pull(buckets.at(address), "images", old.number, target)
        child = SPAWN.Process(target=pull_and_die, args=(address, target, instant, atomic, told))
        child.start()
        child.join(60)
        return child.exitcode

    assert attempt(0) == 0
    ends = []
    for instant in instants(told.get()):
        ends.append(attempt(instant))
        if not atomic:
            swap.recover(target)
        assert holds(target, new) or (holds(target, old) if old else not target.exists()), instant
        pull(buckets.at(address), "images", None, target)
        assert holds(target, new), instant
        assert [path.name for path in target.parent.iterdir()] == [target.name], instant
    # a pull over the network may touch the disk less often than the first one and outlive a late instant
    assert set(ends) <= {-signal.SIGKILL, 0}
    assert ends.count(-signal.SIGKILL) > len(ends) // 2


@pytest.mark.parametrize("way", ["fresh", "over another", "over another, without exchange"])
def test_a_pull_killed_at_any_instant_leaves_the_old_release_or_the_new(publish, target, tmp_path, way):
    address = str(tmp_path / "production")
    old = None if way == "fresh" else publish(buckets.at(address), "images", {"maskgit": 2, "tokenizer": 1})
    new = publish(buckets.at(address), "images", {"samba": 3, "tokenizer": 1})
    dice = random.Random(way)
    die_at_every(lambda count: dice.sample(range(1, count), 5), address, target, "without" not in way, old, new)


@pytest.mark.soak
@pytest.mark.parametrize("atomic", [True, False])
def test_a_pull_killed_at_fifty_instants_leaves_the_old_release_or_the_new(production, publish, target, atomic):
    bucket = buckets.at(production)
    old = publish(bucket, "images", {"maskgit": 2, "tokenizer": 1}, size=300_000)
    new = publish(bucket, "images", {"samba": 3, "tokenizer": 1}, size=300_000)
    dice = random.Random(50)
    die_at_every(lambda count: dice.sample(range(1, count), 50), production, target, atomic, old, new)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_the_old_release_and_what_had_arrived(small_disk, publish, tmp_path, monkeypatch):
    bucket = buckets.at(str(tmp_path / "production"))
    old = publish(bucket, "images", {"tokenizer": 1})
    pull(bucket, "images", None, small_disk / "images")
    new = publish(bucket, "images", {"maskgit": 2, "tokenizer": 3}, size=200_000)  # 1.6 MB each
    (small_disk / "logs").write_bytes(bytes(1_500_000))
    with pytest.raises(UserError, match=f"{small_disk} has 3 MB free, 3 MB are needed"):
        pull(bucket, "images", None, small_disk / "images")
    with monkeypatch.context() as patched:  # somebody else fills the disk after the check
        patched.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 1 << 40))
        with pytest.raises(UserError, match=f"no space left in {small_disk}: free some and run again"):
            pull(bucket, "images", None, small_disk / "images")
    assert holds(small_disk / "images", old)
    assert (small_disk / "images.partial/maskgit/model.safetensors").stat().st_size > 1_600_000
    assert 0 < (small_disk / "images.partial/tokenizer/model.safetensors.partial").stat().st_size < 1_600_000
    (small_disk / "logs").unlink()
    pull(bucket, "images", None, small_disk / "images")
    assert holds(small_disk / "images", new)
    assert sorted(path.name for path in small_disk.iterdir()) == ["images"]


def test_the_newest_of_a_thousand_releases_is_found_by_one_list_and_one_read(publish, tmp_path, monkeypatch):
    bucket = buckets.at(str(tmp_path))
    log = [publish(bucket, "images", {"tokenizer": 1})]
    for number in range(2, 1001):
        log.append(replace(log[0], number=number, previous=pointers.digest(log[-1])))
        (tmp_path / f"releases/images/{number:06d}.json").write_text(pointers.text(log[-1]))
    assert pointers.log(bucket, "images") == log
    calls: list[str] = []
    for name in ("read", "list"):
        original = getattr(bucket, name)
        monkeypatch.setattr(bucket, name, lambda key, do=original, name=name: (calls.append(name), do(key))[1])
    assert pointers.newest(bucket, "images") == log[-1]
    assert calls == ["list", "read"]
