"""Outputs move between cache and remote once, verified, in DVC's own layout; what goes wrong names the object."""

import contextlib
import errno
import hashlib
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from dvc.repo import Repo

from data.core.params import UserError
from flows import settings
from flows.pipeline import workspace
from flows.pipeline.store import Store
from flows.remote import exchange, objects, patience
from flows.remote.objects import FolderObjects
from flows.stage.process import Stopped
from flows.storage.protocol import Denied, NotThere
from flows.storage.transfer import WrongContent
from tests.proxy import Proxy

pytestmark = pytest.mark.integration

FILES = {"a.txt": b"alpha", "deep/b.bin": bytes(range(256)) * 400, "same.txt": b"alpha"}


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def opened(production, tmp_path, monkeypatch):
    """Makes the exchange of a machine: opened("one") has its own cache, and the remote in common with all."""
    monkeypatch.setenv("REMINT_REMOTE", production)
    chosen = settings.load(tmp_path)

    def make(machine):
        return exchange.open(chosen, tmp_path / machine)

    return make


def fill(place, files=FILES):
    """Put an output folder into a cache as DVC does; returns its digest."""
    for data in files.values():
        path = place.path(md5(data))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    rows = [{"md5": md5(data), "relpath": name} for name, data in sorted(files.items())]
    text = json.dumps(rows, sort_keys=True).encode()
    oid = f"{md5(text)}.dir"
    place.path(oid).parent.mkdir(parents=True, exist_ok=True)
    place.path(oid).write_bytes(text)
    return oid


def test_a_folder_travels_whole_and_only_once(opened):
    one, two = opened("one"), opened("two")
    oid = fill(one)
    size = len(FILES["a.txt"]) + len(FILES["deep/b.bin"]) + one.path(oid).stat().st_size
    sent = one.push([oid])
    assert sent.bytes == size
    assert sent.objects[-1] == oid  # the list is there only when all its files are
    assert one.push([oid]).bytes == 0
    assert two.fetch([oid]).bytes == size
    assert {p.read_bytes() for p in map(two.path, two.members(oid))} == set(FILES.values())
    assert two.fetch([oid]).bytes == 0
    assert not list(two.scratch.glob("*.partial"))


def test_only_new_files_of_a_grown_folder_are_uploaded(opened):
    one = opened("one")
    one.push([fill(one)])
    grown = fill(one, FILES | {"c.txt": b"new"})
    assert one.push([grown]).bytes == 3 + one.path(grown).stat().st_size


def test_two_readers_at_once_with_one_cache_move_nothing_twice(opened):
    one = opened("one")
    oid = fill(one)
    size = one.push([oid]).bytes
    readers = [opened("shared") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        moved = list(pool.map(lambda reader: reader.fetch([oid]).bytes, readers))
    assert sum(moved) == size


@pytest.mark.soak
def test_a_gigabyte_of_shards_is_moved_once_and_linked_by_the_second_reader(tmp_path, make_toy, monkeypatch):
    remote = FolderObjects(tmp_path / "remote")
    one = exchange.Exchange(tmp_path / "one", remote)
    oid = fill(one, {f"shard-{i:03d}.tar": i.to_bytes(1, "big") * (64 << 20) for i in range(16)})
    assert one.push([oid]).bytes > 1 << 30
    shared = exchange.Exchange(tmp_path / "shared", remote)
    with ThreadPoolExecutor(2) as pool:
        moved = list(pool.map(lambda _: shared.fetch([oid]).bytes, range(2)))
    assert 1 << 30 < sum(moved) < (1 << 30) + (1 << 20)
    (tmp_path / "clone").mkdir()
    toy = make_toy(tmp_path / "clone")
    monkeypatch.setenv("REMINT_CACHE", str(shared.cache))
    chosen = settings.load(toy.root)
    entry = {
        "cmd": "python stage.py base artifacts/base",
        "outs": [{"path": "artifacts/base", "hash": "md5", "md5": oid}],
    }
    with workspace.opened(chosen, toy.git("rev-parse", "HEAD"), "reader") as root:
        (root / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"base": entry}}))
        store = Store(root)
        store.checkout(["artifacts/base"])
        store.close()
        shards = sorted((root / "artifacts" / "base").iterdir())
        assert len(shards) == 16
        assert all(shard.stat().st_nlink > 1 for shard in shards)  # no copy


def test_dvc_pulls_what_was_pushed_here_and_the_other_way_round(make_toy, tmp_path, production, monkeypatch):
    monkeypatch.setenv("REMINT_REMOTE", production)
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    toy = make_toy(first)
    with Repo(str(first)) as repo, repo.config.edit() as config:
        config["remote"] = {"shared": {"url": production}}
        config["core"] = {"remote": "shared"}
    toy.git("commit", "--quiet", "--all", "--message", "Name the remote")
    with contextlib.chdir(first), Repo() as repo:
        repo.reproduce("left")
        outs = [out.hash_info.value for out in repo.index.outs if out.hash_info]
        exchange.open(settings.load(first), first / ".dvc" / "cache").push(outs)
    toy.git("clone", "--quiet", str(first), str(second))
    shutil.copy(first / "dvc.lock", second / "dvc.lock")
    with contextlib.chdir(second), Repo() as repo:
        repo.pull(["base", "left"])
    assert (second / "artifacts/left/text.txt").read_bytes() == (first / "artifacts/left/text.txt").read_bytes()
    with contextlib.chdir(first), Repo() as repo:
        repo.reproduce("right@a")
        repo.push(["right@a"])
        (oid,) = [o.hash_info.value for o in repo.index.outs if o.def_path == "artifacts/right/a"]
    assert exchange.open(settings.load(second), second / ".dvc" / "cache").fetch([oid]).bytes > 0


def test_a_large_file_is_uploaded_in_parts_and_verified(opened, production):
    one, two = opened("one"), opened("two")
    data = bytes(range(251)) * 50_000  # 12.5 MB
    oid = md5(data)
    one.path(oid).parent.mkdir(parents=True)
    one.path(oid).write_bytes(data)
    if production.startswith("s3"):
        one.remote.part_bytes = 5 << 20
    assert one.push([oid]).bytes == len(data)
    two.fetch([oid])
    assert two.path(oid).read_bytes() == data
    assert two.path(oid).stat().st_mode & 0o222 == 0  # as DVC protects its cache


def test_a_damaged_object_of_the_remote_is_named_and_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("REMINT_REMOTE", str(tmp_path / "remote"))
    one = exchange.open(settings.load(tmp_path), tmp_path / "one")
    oid = md5(b"right")
    kept = tmp_path / "remote" / objects.key(oid)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"wrong")
    with pytest.raises(WrongContent, match=f"expected md5 {oid}, found {md5(b'wrong')}"):
        one.fetch([oid])
    assert not one.path(oid).exists()
    assert not list(one.scratch.glob("*.partial"))


def test_a_damaged_object_of_the_cache_is_not_published(opened):
    one = opened("one")
    oid = md5(b"right")
    one.path(oid).parent.mkdir(parents=True)
    one.path(oid).write_bytes(b"wrong")
    with pytest.raises(WrongContent, match=f"expected md5 {oid}, found {md5(b'wrong')}"):
        one.push([oid])
    assert one.missing([oid]) == {oid}


def test_what_nobody_has_is_named(opened):
    with pytest.raises(NotThere, match="files/md5/01/23"):
        opened("one").fetch([f"0123{'0' * 28}"])


@pytest.mark.parametrize("oid", ["../../etc/passwd", "0123", f"{'0' * 32}.dir/..", "A" * 32])
def test_a_digest_that_is_none_leads_nowhere(opened, oid):
    with pytest.raises(UserError, match="is not an MD5 digest"):
        opened("one").fetch([oid])


class Failing(FolderObjects):
    """A remote that fails at first, as S3 does under load."""

    failures = 2

    def get(self, oid, path, watch):
        if self.failures:
            self.failures -= 1
            raise UserError("SlowDown")
        super().get(oid, path, watch)


def test_a_remote_that_fails_for_a_while_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "FIRST", 0.01)
    one = exchange.Exchange(tmp_path / "one", Failing(tmp_path / "remote"))
    oid = md5(b"x")
    one.path(oid).parent.mkdir(parents=True)
    one.path(oid).write_bytes(b"x")
    one.push([oid])
    two = exchange.Exchange(tmp_path / "two", Failing(tmp_path / "remote"))
    assert two.fetch([oid]).bytes == 1
    monkeypatch.setattr(Failing, "failures", 100)
    three = exchange.Exchange(tmp_path / "three", Failing(tmp_path / "remote"))
    three.patience = 0.1
    with pytest.raises(UserError, match="SlowDown"):
        three.fetch([oid])


def test_a_wrong_key_is_said_at_once(s3_address, tmp_path, monkeypatch):
    monkeypatch.setenv("REMINT_REMOTE", s3_address)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    began = time.monotonic()
    with pytest.raises(Denied, match="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"):
        exchange.open(settings.load(tmp_path), tmp_path / "one").fetch([md5(b"x")])
    assert time.monotonic() - began < 5


class TestBadNetwork:
    """What the network does to a transfer with S3 costs time and never bytes."""

    @pytest.fixture
    def proxy(self, s3_server):
        made = Proxy(int(s3_server["AWS_ENDPOINT_URL"].rpartition(":")[2]))
        yield made
        made.listener.close()

    @pytest.fixture
    def place(self, s3_address, tmp_path, monkeypatch):
        monkeypatch.setenv("REMINT_REMOTE", s3_address)
        return lambda machine: exchange.open(settings.load(tmp_path), tmp_path / machine)

    @pytest.fixture
    def stored(self, place):
        """The digest of a file of 3 MB that is in the remote."""
        data = bytes(range(253)) * 12_000
        one = place("one")
        one.path(md5(data)).parent.mkdir(parents=True)
        one.path(md5(data)).write_bytes(data)
        one.push([md5(data)])
        return md5(data)

    def test_answers_that_are_cut_off_are_gone_on_with(self, place, stored, proxy, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.answer = lambda position, part: part if position < 1_000_000 else None
        two = place("two")
        moved = two.fetch([stored])
        assert two.path(stored).stat().st_size == 253 * 12_000
        assert moved.bytes < 253 * 12_000 + 10  # nothing that arrived was asked for again
        assert proxy.connections >= 3

    def test_a_byte_that_was_changed_on_the_way_is_fetched_again(self, place, stored, proxy, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        flipped = []

        def flip(position, part):
            if position < 2_000_000 or flipped:
                return part
            flipped.append(position)
            return bytes([part[0] ^ 1]) + part[1:]

        proxy.answer = flip
        two = place("two")
        two.fetch([stored])
        assert flipped
        assert md5(two.path(stored).read_bytes()) == stored

    def test_a_server_that_is_busy_for_a_while_is_waited_for(self, place, proxy, monkeypatch):
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        proxy.canned = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        threading.Timer(3.0, lambda: setattr(proxy, "canned", None)).start()
        one = place("one")
        oid = fill(one)
        assert one.push([oid]).objects[-1] == oid
        assert one.missing([oid, *one.members(oid)]) == set()


class Filling(FolderObjects):
    """A remote whose second file no longer fits on this machine's disk."""

    def get(self, oid, path, watch):
        if oid == md5(FILES["deep/b.bin"]):
            path.with_name(f"{path.name}.partial").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        super().get(oid, path, watch)


def test_on_a_full_disk_everything_that_was_brought_is_removed(tmp_path):
    one = exchange.Exchange(tmp_path / "one", FolderObjects(tmp_path / "remote"))
    oid = fill(one)
    one.push([oid])
    two = exchange.Exchange(tmp_path / "two", Filling(tmp_path / "remote"))
    with pytest.raises(OSError, match="No space left"):
        two.fetch([oid])
    assert not [p for p in two.cache.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_a_transfer_that_is_to_stop_stops(opened):
    one, stop = opened("one"), threading.Event()
    oid = fill(one)
    one.push([oid])
    stop.set()
    with pytest.raises(Stopped):
        opened("two").fetch([oid], stop)


def test_what_a_killed_worker_left_half_done_is_gone_on_with_or_removed(tmp_path):
    one = exchange.Exchange(tmp_path / "one", FolderObjects(tmp_path / "remote"))
    oid = fill(one)
    one.push([oid])
    big = md5(FILES["deep/b.bin"])
    two = exchange.Exchange(tmp_path / "two", FolderObjects(tmp_path / "remote"))
    two.scratch.mkdir(parents=True)
    (two.scratch / f"{big}.partial").write_bytes(FILES["deep/b.bin"][:100_000])
    assert two.fetch([big]).bytes == len(FILES["deep/b.bin"]) - 100_000
    (two.scratch / f"{'0' * 32}.partial").write_bytes(b"half")
    two.clean()
    assert not list(two.scratch.glob("*.partial"))
