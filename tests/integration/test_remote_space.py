# ruff: noqa: F811 - fixtures that are imported
"""A worker's cache stays below its bound, and on a full disk it gives way to the stage."""

import os
from contextlib import contextmanager

import pytest

from flows.pipeline import workspace
from flows.remote import evict, exchange, execute, space
from tests import disk
from tests.integration.test_remote_exchange import md5
from tests.integration.test_remote_execute import machines, project  # noqa: F401

pytestmark = pytest.mark.integration


def place(host):
    return exchange.open(host.settings, workspace.cache(host.settings))


def filled(host, *sizes):
    """Objects of these sizes in the cache of a machine, as stages of the night before have left them there."""
    here, oids = place(host), []
    for number, size in enumerate(sizes):
        data = number.to_bytes(1, "big") * size
        oids.append(md5(data))
        here.path(oids[-1]).parent.mkdir(parents=True, exist_ok=True)
        here.path(oids[-1]).write_bytes(data)
    here.push(oids)
    for number, oid in enumerate(oids):  # after the push, which has read them
        os.utime(here.path(oid), (number, 0))
    return oids


def test_when_a_stage_has_ended_the_cache_is_below_its_bound(machines, monkeypatch, capsys):
    monkeypatch.setenv("REMINT_CACHE_GB", "0.003")
    host = machines.host()
    old = filled(host, 2_500_000, 400_000)
    outcome = machines.make(machines.ask("second")).outcome
    assert outcome.state == "succeeded", outcome
    here = place(host)
    assert sum(item.file.st_size for item in evict.survey(here)) < 3_000_000
    assert [here.path(oid).exists() for oid in old] == [False, True]
    assert "worker one: 2.5 MB of the cache freed: 1 objects not used for longest\n" in capsys.readouterr().err
    assert machines.make(machines.ask("second", run="another")).outcome.usage.bytes_in == 0  # its inputs are newer


def test_a_stage_gets_its_space_before_it_begins(machines, monkeypatch):
    monkeypatch.setattr(space, "SPARE", 1 << 60)
    old = filled(machines.host(), 1000)
    outcome = machines.make(machines.ask("second")).outcome
    assert outcome.state == "succeeded", outcome
    assert not place(machines.host()).path(old[0]).exists()
    assert any("1 kB of the cache freed" in said and "too many are in use" in said for said in machines.said)


@contextmanager
def small_disk(folder, monkeypatch):
    """A small disk, on which nothing is freed before a stage begins."""
    with disk.small(folder, monkeypatch) as free, monkeypatch.context() as patient:
        patient.setattr(space, "SPARE", 0)
        yield free


@disk.needed
class TestFullDisk:
    def test_a_stage_that_finds_the_disk_full_of_cache_runs_again_and_succeeds(self, machines, monkeypatch):
        with small_disk(machines.folder, monkeypatch) as free:
            monkeypatch.setattr(space, "FULL", 1)  # only the log says that there was no space
            host = machines.host("small")
            old = filled(host, free() - (3 << 19))  # the stage writes 2 MB
            outcome = machines.make(machines.ask("first"), host).outcome
            assert outcome.state == "succeeded", outcome
            assert "No space left" not in outcome.log
            assert not place(host).path(old[0]).exists()
        assert [said for said in machines.said if "of the cache freed: 1 objects" in said]

    def test_inputs_for_which_the_disk_is_too_full_of_cache_are_fetched_all_the_same(self, machines, monkeypatch):
        with small_disk(machines.folder, monkeypatch) as free:
            monkeypatch.setattr(space, "FULL", 1)  # only the error says that there was no space
            host = machines.host("small")
            filled(host, free() - (1 << 20))  # the inputs are 2 MB
            outcome = machines.make(machines.ask("second"), host).outcome
            assert outcome.state == "succeeded", outcome

    def test_a_disk_that_is_full_of_what_nobody_else_has_fails_the_stage_once(self, machines, monkeypatch):
        with small_disk(machines.folder, monkeypatch) as free:
            host = machines.host("small")
            (oid,) = filled(host, free() - (1 << 20))
            (machines.folder / "shared" / "dvc" / exchange.objects.key(oid)).unlink()
            outcome = machines.make(machines.ask("second"), host).outcome
            assert (outcome.state, outcome.retry) == ("failed", True)
            assert "is full: free space there" in outcome.why
            assert place(host).path(oid).exists()
        assert machines.said.count("fetching inputs") == 1


def test_a_result_that_was_evicted_before_it_was_handed_on_counts_all_the_same(machines, monkeypatch):
    """Another worker has handed on the same before, so that this one is free to go."""
    first, entry = machines.make(machines.ask("second")).outcome, execute.inputs.entry

    def evicted(root, stage):
        found = entry(root, stage)
        place(machines.host()).path(found["outs"][0]["md5"]).unlink()
        return found

    monkeypatch.setattr(execute.inputs, "entry", evicted)
    again = machines.make(machines.ask("second", run="another")).outcome
    assert (again.state, again.entry) == ("succeeded", first.entry), again
