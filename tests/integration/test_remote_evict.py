"""What a machine's cache has not used for longest goes, and nothing that would be missed."""

import contextlib
import hashlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data.core.params import UserError
from flows import settings
from flows.pipeline.store import Store
from flows.remote import evict, exchange, objects
from flows.remote.exchange import Exchange
from flows.remote.objects import FolderObjects

pytestmark = pytest.mark.integration

EVERYTHING = lambda held: math.inf  # noqa: E731


def md5(data):
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def add(place, data, suffix=""):
    """An object of the cache as DVC leaves it there; returns its digest."""
    oid = md5(data) + suffix
    path = place.path(oid)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    return oid


def add_folder(place, *files):
    rows = [{"md5": add(place, data), "relpath": f"{number}.bin"} for number, data in enumerate(files)]
    return add(place, json.dumps(rows).encode(), ".dir")


def used(place, *oids):
    """Let these be the objects that were not used for longest, the first for longer than the second."""
    for second, oid in enumerate(oids, 1):
        os.utime(place.path(oid), (second, place.path(oid).stat().st_mtime))


@pytest.fixture
def place(tmp_path):
    return Exchange(tmp_path / "cache", FolderObjects(tmp_path / "remote"))


@pytest.fixture
def three(place):
    """Objects of 1000 bytes that the remote keeps, from the one used longest ago to the newest."""
    oids = [add(place, bytes([number]) * 1000) for number in range(3)]
    place.push(oids)
    used(place, *oids)
    return oids


def here(place, oids):
    return [place.path(oid).exists() for oid in oids]


def test_what_was_not_used_for_longest_goes_until_the_cache_is_small_enough(place, three):
    done = evict.evict(place, lambda held: held - 2000)
    assert here(place, three) == [False, True, True]
    assert str(done) == "1 kB of the cache freed: 1 objects not used for longest"
    assert str(evict.evict(place, lambda held: held - 2000)) == ""
    assert evict.evict(place, lambda held: held - 500).bytes == 2000
    assert place.fetch(three).bytes == 3000


def test_what_a_fetch_finds_is_used_and_dvc_still_knows_its_files(place, three):
    before = place.path(three[0]).stat().st_mtime_ns
    place.fetch(three[:1])
    assert place.path(three[0]).stat().st_mtime_ns == before  # by which DVC's state knows a file's hash
    evict.evict(place, lambda held: 1)
    assert here(place, three) == [True, False, True]


def test_the_remote_is_asked_whether_it_keeps_an_object(production, tmp_path, monkeypatch):
    monkeypatch.setenv("REMINT_REMOTE", production)
    place = exchange.open(settings.load(tmp_path), tmp_path / "cache")
    kept, mine = add(place, b"pushed"), add(place, b"made here and never pushed")
    place.push([kept])
    assert evict.evict(place, EVERYTHING).objects == 1
    assert here(place, [kept, mine]) == [False, True]


@contextlib.contextmanager
def linked(place, oid):
    os.link(place.path(oid), place.cache.parent / "in a worktree")
    yield


@contextlib.contextmanager
def cut_in_the_remote(place, oid):
    path = place.remote.root / objects.key(oid)
    path.chmod(0o644)
    path.write_bytes(b"half")
    yield


@contextlib.contextmanager
def locked(place, oid):
    with place.locked(oid[:2]):
        yield


@contextlib.contextmanager
def in_a_remote_that_is_the_cache(place, oid):
    place.remote = FolderObjects(place.cache)
    yield


@contextlib.contextmanager
def used_meanwhile(place, oid):
    keeps = place.remote.keeps

    def look(asked, file):
        place.fetch([oid])
        return keeps(asked, file)

    place.remote.keeps = look
    yield


@pytest.mark.parametrize("how", [linked, cut_in_the_remote, locked, in_a_remote_that_is_the_cache, used_meanwhile])
def test_an_object_stays_that_is(place, three, how):
    with how(place, three[0]):
        evict.evict(place, EVERYTHING)
    assert place.path(three[0]).exists()


def test_nothing_goes_while_somebody_relies_on_the_cache(place, three, monkeypatch):
    monkeypatch.setattr(evict, "MOMENT", 0)
    with place.fetched(three):
        done = evict.evict(place, EVERYTHING)
    assert (done.objects, str(done)) == (0, "nothing of the cache could be freed: " + done.why)
    assert all(here(place, three))


def test_a_bound_that_cannot_be_held_is_said(place, three):
    with linked(place, three[0]):
        assert str(evict.evict(place, lambda held: held)).endswith("; 1 kB too many are in use or not in the remote")


class Dying(FolderObjects):
    """A remote that does not answer any more after some questions."""

    answers = 0

    def keeps(self, oid, file):
        if not self.answers:
            raise UserError("the remote is away")
        self.answers -= 1
        return super().keeps(oid, file)


def test_a_folder_s_list_is_never_there_without_its_files_wherever_it_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(evict, "PORTION", 1)
    left = set()
    for answers in range(8):
        place = Exchange(tmp_path / str(answers), Dying(tmp_path / "remote"))
        one = add_folder(place, b"shared", b"own of one")
        other = add_folder(place, b"shared", b"own of the other")
        members = {oid: place.members(oid) for oid in (one, other)}
        place.push(members)
        used(place, *members[one], *members[other], one, other)  # the lists were read last
        place.remote.answers = answers
        done = evict.evict(place, EVERYTHING)
        assert done.why == ("the remote is away" if answers < 5 else "")
        for oid, names in members.items():
            assert all(here(place, names)) or not place.path(oid).exists()
        left.add(len(evict.survey(place)))
        place.fetch(members)
        assert len(evict.survey(place)) == 5
    assert left == {0, 1, 2, 3, 4, 5}


def test_files_stay_that_a_list_names_which_is_not_in_the_remote(place):
    pushed = add_folder(place, b"old", b"older")
    place.push([pushed])
    grown = add_folder(place, b"old", b"older", b"new and not pushed")
    assert evict.evict(place, EVERYTHING).objects == 1  # the list of the pushed one
    assert all(here(place, [grown, *place.members(grown)]))


def test_dvc_and_a_plan_see_that_an_evicted_output_is_not_here(make_toy, tmp_path):
    (tmp_path / "clone").mkdir()
    toy = make_toy(tmp_path / "clone")
    place = Exchange(toy.root / ".dvc" / "cache", FolderObjects(tmp_path / "remote"))
    with contextlib.chdir(toy.root):
        subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet", "base"], check=True)
        store = Store(toy.root)
        outs = store.recorded(next(stage for stage in store.stages if stage.name == "base")).outs
        place.push(outs.values())
        assert store.stored(outs)
        subprocess.run(["rm", "-r", *outs], check=True)
        evict.evict(place, EVERYTHING)
        assert not store.stored(outs)
        with place.fetched(outs.values()):
            store.checkout(list(outs))
        assert store.stored(outs)
        store.close()
    assert all((toy.root / out).exists() for out in outs)


EVICTING = """\
import math, sys
from pathlib import Path
from flows.remote import evict
from flows.remote.exchange import Exchange
from flows.remote.objects import FolderObjects

cache, remote, end, rounds = sys.argv[1:]
place = Exchange(Path(cache), FolderObjects(Path(remote)))
for _ in range(int(rounds)):
    done = evict.evict(place, lambda held: math.inf)
    print(done.objects, flush=True)
    if Path(end).exists():
        break
"""


def another_process(place, end, rounds):
    command = [sys.executable, "-c", EVICTING, str(place.cache), str(place.remote.root), str(end), str(rounds)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True)


def test_who_finds_another_process_at_it_leaves_it_to_that_one(place, three, tmp_path):
    with place.locked(evict.LOCK):
        assert another_process(place, tmp_path / "end", 1).communicate(timeout=60)[0].split() == ["0"]
    assert all(here(place, three))
    assert another_process(place, tmp_path / "end", 1).communicate(timeout=60)[0].split() == ["3"]


def test_what_was_fetched_can_be_linked_although_another_process_evicts_all_the_time(place, tmp_path):
    oid = add_folder(place, *(bytes([number]) * 100 for number in range(20)))
    names, end = place.members(oid), tmp_path / "end"
    place.push([oid])
    other, evicted, until = another_process(place, end, 10**6), 0, time.monotonic() + 120
    try:
        while evicted < 10:
            assert time.monotonic() < until
            with place.fetched([oid]) as moved:
                evicted += bool(moved.bytes)
                for name in names:
                    os.link(place.path(name), tmp_path / name)
            for name in names:
                (tmp_path / name).unlink()
    finally:
        end.touch()
        other.communicate(timeout=60)
    assert other.returncode == 0
