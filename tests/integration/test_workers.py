"""Stock Prefect workers under a real server: asked to end, killed, late, without their server."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.workers import flowruns, pools
from flows.workers.watch import Watches
from tests import staged, workers

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def farm(prefect_server, tmp_path_factory):
    """Two workers of pool cpu."""
    folder = tmp_path_factory.mktemp("farm")
    source = staged.make(folder / "source")
    with pytest.MonkeyPatch.context() as patch, workers.farm(folder, source, prefect_server.api) as made:
        patch.setenv("PREFECT_API_URL", prefect_server.api)
        for name in ("one", "two"):
            made.start("cpu", name, wait=False)
        for worker in made.workers:
            worker.says("started!", 180)
        yield made


def opened(farm, stage, **changes):
    """An attempt at a stage that nothing is known of, as its run waits for it."""
    order = workers.order(farm.folder / "source", stage, **changes)
    farm.orders.forget(order)
    caches = [farm.folder / "shared" / "dvc", *(worker.clone / ".dvc" / "cache" for worker in farm.workers)]
    for cache in caches:
        shutil.rmtree(cache / "runs" / order.key[:2], ignore_errors=True)
    return again(farm, order)


class Waiting:
    """An attempt that somebody waits for."""

    def __init__(self, farm, attempt, silent=40.0):
        self.all, self.said = Watches(farm.orders, silent), []
        self.watch = self.all.add(attempt, lambda text, whole: self.said.append(text))
        self.attempt = attempt
        self.poll()

    def poll(self):
        self.all.look()
        if self.watch.error:
            raise self.watch.error
        return self.watch.ended

    @property
    def shown(self):
        """Its state, as Prefect shows it."""
        with flowruns.client() as api:
            return api.read_flow_run(self.watch.flow_run).state


def again(farm, order):
    """The next attempt at the same work."""
    return Waiting(farm, farm.orders.open(order, len(farm.orders.attempts(order)) + 1))


def ended(farm, watch, seconds=120.0):
    return farm.wait(watch.poll, f"end of {watch.attempt.place}", seconds)


def working(farm, watch):
    """The worker whose stage has begun to count, and its flow's process."""
    farm.wait(lambda: (watch.poll(), "step" in "".join(watch.said))[1] or None, "step", 90)
    for worker in farm.workers:
        if worker.process.poll() is None:
            for pid in workers.descendants(worker.process.pid):
                if b"prefect.engine" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return worker, pid
    raise AssertionError("no worker works")


@pytest.fixture(scope="module")
def digest(farm):
    """What the slow stage gives where nothing disturbs it."""
    return ended(farm, opened(farm, "slow")).entry["outs"][0]["md5"]


@pytest.fixture
def slow(farm, digest):
    """The slow stage at work, on which worker, and in which process."""
    hold = farm.folder / "shared" / "checkpoints" / "hold"
    hold.parent.mkdir(exist_ok=True)
    hold.touch()  # it counts no further
    try:
        watch = opened(farm, "slow")
        worker, pid = working(farm, watch)
        yield watch, worker, pid, hold
    finally:
        hold.unlink(missing_ok=True)


def test_a_stage_is_taken_run_handed_on_and_shown_in_prefect(farm):
    watch = opened(farm, "first")
    began = time.monotonic()
    done = ended(farm, watch)
    assert (done.state, done.why) == ("succeeded", "")
    assert time.monotonic() - began - done.seconds < 40  # 5 to 7 on a quiet machine
    assert done.usage.bytes_out > 2_000_000
    key = watch.attempt.order.key
    assert farm.folder.joinpath("shared/dvc/runs", key[:2], key).is_dir()
    farm.wait(lambda: watch.shown.name == "Completed" or None, "state", 30)
    with flowruns.client() as api:
        assert pools.served(api, "cpu") == pools.Served("process", None, ("one", "two"))
    assert not list((farm.clone("one") / ".remint" / "worktrees").glob("first-*"))


def test_a_worker_that_is_asked_to_end_saves_a_checkpoint_and_another_goes_on_to_the_same_bytes(farm, slow, digest):
    watch, worker, _, hold = slow
    assert worker.end(40.0) < 30
    given = ended(farm, watch, 5.0)
    assert (given.state, given.retry) == ("preempted", True)
    hold.unlink()
    second = ended(farm, again(farm, watch.attempt.order))
    assert (second.state, second.resumed, second.entry["outs"][0]["md5"]) == ("succeeded", True, digest)
    farm.start("cpu", worker.name)


def test_a_stage_whose_flow_is_killed_is_lost_at_once_and_runs_again_elsewhere(farm, slow, digest):
    watch, _, pid, hold = slow
    os.kill(pid, signal.SIGKILL)
    lost = ended(farm, watch, 40.0)
    assert (lost.state, "status code" in lost.why) == ("lost", True)
    hold.unlink()
    assert ended(farm, again(farm, watch.attempt.order)).entry["outs"][0]["md5"] == digest


def test_a_stage_outlives_its_killed_worker(farm, slow, digest):
    watch, worker, _, hold = slow
    for other in workers.descendants(worker.process.pid):
        if b"worker\0start" in Path(f"/proc/{other}/cmdline").read_bytes():
            os.kill(other, signal.SIGKILL)
    assert worker.process.wait(20) != 0  # it was Prefect's, and says so
    hold.unlink()
    done = ended(farm, watch)
    assert (done.state, done.why) == ("succeeded", "")
    assert done.entry["outs"][0]["md5"] == digest
    farm.start("cpu", worker.name)


def test_a_machine_without_power_is_noticed_by_the_run_that_waits_and_leaves_nothing(farm, slow, digest):
    watch, worker, _, hold = slow
    worker.kill()
    lost = ended(farm, watch, 90.0)
    assert (lost.state, lost.why) == ("lost", "it gave no sign of life for 40 s")
    hold.unlink()
    assert ended(farm, again(farm, watch.attempt.order)).entry["outs"][0]["md5"] == digest
    assert list((worker.clone / ".remint" / "worktrees").glob("slow-*"))
    farm.start("cpu", worker.name)
    assert not list((worker.clone / ".remint" / "worktrees").glob("slow-*"))


@pytest.mark.soak  # two minutes
def test_the_automation_takes_a_flow_without_heartbeats_for_crashed(farm, slow):
    watch, worker, _, _ = slow
    watch.all.silent = 600.0
    worker.kill()
    lost = ended(farm, watch, 180.0)
    assert (lost.state, lost.why) == ("lost", "It gave no heartbeat.")
    farm.start("cpu", worker.name)


def test_who_comes_late_spoils_nothing(farm, slow, digest):
    watch, _, pid, hold = slow
    every = [pid, *workers.descendants(pid)]
    for one in every:
        os.kill(one, signal.SIGSTOP)
    hold.unlink()
    second = ended(farm, again(farm, watch.attempt.order))
    for one in every:
        os.kill(one, signal.SIGCONT)
    late = ended(farm, watch)
    assert late.entry["outs"] == second.entry["outs"]
    key = watch.attempt.order.key
    assert len(list(farm.folder.joinpath("shared/dvc/runs", key[:2], key).iterdir())) == 1


def test_what_nobody_waits_for_any_more_is_not_counted_and_leaves_nothing(farm, slow):
    watch, _, _, hold = slow
    farm.orders.forget(watch.attempt.order)
    hold.unlink()
    farm.wait(lambda: watch.shown.type.value == "COMPLETED" or None, "end", 120)
    assert watch.shown.name == "NotCounted"
    assert farm.orders.store.list(watch.attempt.order.work) == []


def test_a_stage_goes_on_while_prefect_s_server_is_away_and_workers_serve_on_afterwards(farm, slow, prefect_server):
    watch, _, _, hold = slow
    prefect_server.stop()
    hold.unlink()
    assert ended(farm, watch).state == "succeeded"
    prefect_server.start()
    assert ended(farm, opened(farm, "first")).state == "succeeded"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"commit": "c" * 40}, "commit cccccccccc is not in origin"),
        ({"environment": {"lock": "d" * 64}}, "another requirements.lock"),
        ({"environment": {"machine": "H200"}}, "the run allows 'H200'"),
        ({"stage": "frist"}, r"has no stage 'frist'; did you mean 'first'"),
        ({"lock": {}, "stage": "second"}, "does not say what artifacts/first is"),
        ({"key": "0" * 64}, "an input of the run is not in its commit or not in the remote"),
    ],
)
def test_what_a_worker_does_not_run_is_rejected_with_the_reason(farm, changes, words):
    rejected = ended(farm, again(farm, replace(workers.order(farm.folder / "source", "first"), **changes)))
    assert (rejected.state, rejected.retry) == ("rejected", False)
    assert re.search(words, rejected.why)


@pytest.mark.parametrize(
    ("stage", "why", "retry"), [("broken", "exit code 3", True), ("mistaken", "a mistake in its input", False)]
)
def test_a_stage_that_fails_says_why_and_what_it_printed(farm, stage, why, retry):
    failed = ended(farm, opened(farm, stage))
    assert (failed.state, failed.retry, why in failed.why) == ("failed", retry, True)
    assert "step" in failed.log or "stage.py" in failed.log


def test_a_part_of_a_stage_goes_into_the_checkpoint_store_and_hands_nothing_on(farm):
    order = workers.order(farm.folder / "source", "first").of_part(2, 3)
    done = ended(farm, again(farm, order))
    assert (done.state, done.entry) == ("succeeded", {})
    assert (farm.folder / "shared" / "checkpoints" / "first-2-of-3").exists()


def test_a_worker_by_hand_in_a_folder_that_is_no_clone_says_what_it_lacks(farm, tmp_path):
    environment = workers.foreign(os.environ) | {"PREFECT_API_URL": farm.api, "PREFECT_WORKER_QUERY_SECONDS": "0.5"}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PREFECT_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--type", "process"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=-3, stderr=-3) as worker:
        try:
            order = replace(workers.order(farm.folder / "source", "first"), pool="gpu")
            rejected = ended(farm, again(farm, order))
        finally:
            worker.kill()
    assert rejected.state == "rejected"
    assert "started outside of a clone" in rejected.why


def test_a_pool_that_nobody_serves_or_whose_dead_nobody_notices_is_said_at_once(farm):
    pools.check("cpu")
    with pytest.raises(UserError, match="no worker serves pool 'flows' now; start one: remint worker --pool flows"):
        pools.check("flows")
    with pytest.raises(UserError, match="there is no work pool 'cpus'; did you mean 'cpu'"):
        pools.check("cpus")
    with farm.client() as client:
        (automation,) = client.read_automations_by_name(pools.AUTOMATION)
        client.delete_automation(automation.id)
    with pytest.raises(UserError, match="no automation 'Crash zombie flows'.*remint deploy"):
        pools.check("cpu")
    workers.deploy_to(farm.api)
    pools.check("cpu")


def test_a_flow_run_cannot_set_job_variables(farm):
    with farm.client() as client:
        deployment = client.read_deployment_by_name("stage/cpu")
        with pytest.raises(Exception, match=r"[Aa]dditional ?[Pp]roperties|409|422"):
            client.create_flow_run_from_deployment(deployment.id, job_variables={"env": {"X": "y"}})
