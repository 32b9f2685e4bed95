"""What a worker's cache gives up before a stage: least recently used first, and only what is fetched again."""

import os
from types import SimpleNamespace

import pytest

from flows.settings import Settings
from flows.workers import cache

OIDS = ["a" * 32, "b" * 32, "c" * 32, "d" * 32]  # of 1,000 bytes each, the first not used for longest


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A cache of four objects, and its store, whose remote lacks the second."""
    monkeypatch.setattr(cache, "SPARE", 0)
    for age, oid in enumerate(OIDS):
        path = tmp_path / "cache/files/md5" / oid[:2] / oid[2:]
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (1000.0 + age, 1000.0))
    kept = SimpleNamespace(accepted=SimpleNamespace(holds=lambda oid: oid != OIDS[1]))
    return lambda gb=None: (Settings(root=tmp_path, cache=tmp_path / "cache", cache_gb=gb), kept)


def there(settings):
    return sorted(path.parent.name + path.name for path in (settings.cache / "files/md5").glob("??/*"))


def test_what_was_not_used_for_longest_goes_first_and_only_what_the_remote_keeps(machine):
    settings, store = machine(2.5e-6)
    assert cache.make_room(settings, store) == 2000
    assert there(settings) == [OIDS[1], OIDS[3]]


def test_without_a_bound_everything_stays_while_the_disk_has_space(machine, monkeypatch):
    settings, store = machine()
    assert cache.make_room(settings, store) == 0
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    monkeypatch.setattr(cache, "SPARE", 1500)
    assert cache.make_room(settings, store) == 2000
    assert there(settings) == [OIDS[1], OIDS[3]]


def test_what_a_worktree_has_linked_stays_and_nothing_goes_while_another_worker_relies_on_it(machine, tmp_path):
    settings, store = machine(1e-9)
    (tmp_path / "worktree").hardlink_to(tmp_path / "cache/files/md5" / OIDS[0][:2] / OIDS[0][2:])
    with cache.in_use(settings):
        assert cache.make_room(settings, store) == 0
    assert cache.make_room(settings, store) == 2000
    assert there(settings) == OIDS[:2]
