"""What this machine notes for itself is written whole; a damaged note is one line with the next step, or made again."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from data.core.params import UserError
from flows import state
from flows.arrivals import batches
from flows.arrivals.incoming import Item, memo
from flows.garbage import releases
from flows.pipeline import accepted, run_record
from flows.pipeline.run import RunInfo
from flows.release import killed
from flows.server import local
from flows.settings import Settings
from flows.storage.folder import FolderBucket
from flows.workers.orders import Ended, Order, Orders
from infra.stack import native, processes, secrets

DAMAGES = [b"", b"{", b'{"run": ', b"[]", b"null", b"7", b'{"a": 1}', b"\xff\xfe", b"\0" * 64, b"[" * 100_000]
RUN = RunInfo("r1", "run/r1", "c" * 40, "b" * 40, Path("gone"), False, "p", datetime(2026, 1, 1, tzinfo=UTC), "retrain")
ORDER = Order("tokens", "k" * 64, "c" * 40, {}, "r1", "gpu")


def run_note(root):
    chosen = Settings(root=root)
    run_record.save(chosen, RUN, [], finished=False)
    return chosen.runs / "r1" / "run.json", lambda: run_record.load(chosen, "r1"), "then: remint doctor"


def stack_processes(root):
    processes.write(root / "processes.json", [processes.Process("a", "a", 1, "7")])
    return root / "processes.json", lambda: processes.read(root / "processes.json"), "by hand"


def stack_ports(root):
    stack = native.Stack(root, root, root)
    stack.ports()
    return root / "ports.json", stack.ports, "for new ones"


def attempt(root, name):
    book = Orders(FolderBucket(root, "REMINT_LEDGER"))
    made = book.open(ORDER, 1)
    book.close(made, Ended("succeeded"))
    asked = {"attempt.json": lambda: book.attempts(ORDER), "outcome.json": lambda: book.ended(made)}
    return root / made.place / name, asked[name], "if no run is under way, remove"


def run_cache(root):
    entry = {"cmd": "true", "deps": [{"path": "a", "md5": "0" * 32}], "outs": [{"path": "b", "md5": "1" * 32}]}
    cache = accepted.Accepted(root)
    cache.add("ab" * 32, entry)
    (path,) = (one for one in root.rglob("*") if one.is_file())
    return path, lambda: cache.find("ab" * 32), "remove it: its stage runs again"


NAMED = {
    "run.json": run_note,
    "processes.json": stack_processes,
    "ports.json": stack_ports,
    "attempt.json": lambda root: attempt(root, "attempt.json"),
    "outcome.json": lambda root: attempt(root, "outcome.json"),
    "run cache": run_cache,
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: repr(damage[:12]))
@pytest.mark.parametrize("name", NAMED)
def test_a_damaged_file_is_named_in_one_line_with_the_next_step(tmp_path, name, damage):
    path, read, step = NAMED[name](tmp_path)
    assert read()
    path.chmod(0o644)
    path.write_bytes(damage)
    if name == "processes.json" and damage == b"[]":
        return  # a note like any other
    with pytest.raises(UserError) as error:
        read()
    assert str(path) in str(error.value)
    assert step in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
def test_the_passwords_of_the_stack_are_never_made_anew_beside_a_damaged_file(tmp_path, damage):
    secrets.make(tmp_path)
    before = (tmp_path / "worker.env").read_text()
    (tmp_path / secrets.VALUES).write_bytes(damage)
    with pytest.raises(SystemExit, match="is damaged, .* bring it back from its backup"):
        secrets.make(tmp_path)
    assert (tmp_path / "worker.env").read_text() == before


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: repr(damage[:12]))
def test_what_can_be_worked_out_again_is(tmp_path, damage):
    log = batches.Log(FolderBucket(tmp_path / "place"), "pool", tmp_path / "kept")
    log.append(lambda known, number: batches.Batch(number, "here", ()) if not known else None)
    assert [one.number for one in batches.Log(log.store, "pool", tmp_path / "kept").read()] == [1]
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes(damage)
    assert [one.number for one in batches.Log(log.store, "pool", tmp_path / "kept").read()] == [1]
    (tmp_path / "garbage.json").write_bytes(damage)
    place = SimpleNamespace(settings=SimpleNamespace(home=tmp_path), now=7.0)
    assert releases._note(place, {"bundles/a"}) == {"bundles/a": 7.0}
    (tmp_path / "server.json").write_bytes(damage)
    with (tmp_path / "server.lock").open("w") as own:
        local.fcntl.flock(own, local.fcntl.LOCK_EX)
        assert local.there(tmp_path) == local.Server()


def test_a_batch_that_is_damaged_where_it_arrived_is_named(tmp_path):
    log = batches.Log(FolderBucket(tmp_path / "place"), "pool", tmp_path / "kept")
    log.append(lambda known, number: batches.Batch(number, "here", ()) if not known else None)
    path = tmp_path / "place/batches/000001.json"
    path.chmod(0o644)
    path.write_bytes(b'{"number": 1')
    with pytest.raises(UserError, match=r"000001.json is damaged .* bring .*/000001.json back from a copy"):
        batches.Log(log.store, "pool", tmp_path / "new").read()


@pytest.mark.parametrize("where", [0, 100, 5000])
def test_a_damaged_memo_is_begun_anew(tmp_path, where):
    path, items = tmp_path / "seen.db", [Item(f"{n}.png", f"{n}", 1, "s") for n in range(500)]
    with memo(path, "here") as seen:
        for item in items:
            seen.note(item, "a" * 64)
    with path.open("r+b") as file:
        file.seek(where)
        file.write(b"\xff" * 3000)
    with memo(path, "here") as seen:
        seen.note(items[0], "b" * 64)
        assert seen.digest(items[0]) == "b" * 64


def test_a_file_has_its_name_only_once_its_bytes_are_on_the_disk(tmp_path, monkeypatch):
    path, synced = tmp_path / "note.json", []
    state.write(path, {"n": 1})

    def power_cut(descriptor):
        synced.append(json.loads(path.read_bytes()))
        raise OSError("power cut")

    monkeypatch.setattr(os, "fsync", power_cut)
    with pytest.raises(OSError, match="power cut"):
        state.write(path, {"n": 2})
    assert synced == [{"n": 1}]  # the old file stood while the new one was made sure of
    assert [one.name for one in tmp_path.iterdir()] == ["note.json"]
    assert json.loads(path.read_bytes()) == {"n": 1}


def test_a_folder_that_somebody_put_among_the_marks_is_no_procedure(tmp_path):
    chosen = Settings(root=tmp_path)
    (chosen.home / "procedures/folder").mkdir(parents=True)
    assert killed.left_behind(chosen) == []
