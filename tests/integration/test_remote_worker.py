"""Real `remint worker` processes under a real Prefect server: asked to end, frozen, killed, without their server."""

import contextvars
import importlib
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from prefect.states import Scheduled

from data.core.params import UserError
from flows import settings
from flows.remote import join
from flows.remote.device import Devices
from flows.remote.execute import Host
from flows.remote.ledger import Outcome
from tests import workers

pytestmark = [pytest.mark.integration, pytest.mark.slow]

sys.path.insert(0, str(workers.Path(__file__).parent))
project = importlib.import_module("test_remote_execute").project
sys.path.pop(0)


@pytest.fixture(scope="module")
def farm(project, prefect_server, tmp_path_factory):
    """Two workers of pool cpu, started at once."""
    import shutil

    folder = tmp_path_factory.mktemp("farm")
    shutil.copytree(project, folder / "source", symlinks=True)
    with workers.farm(folder, folder / "source", prefect_server.api) as made:
        for name in ("one", "two"):
            made.start("cpu", name, wait=False)
        for worker in made.workers:
            worker.says("serves pool cpu with")
        yield made


@pytest.fixture
def api(prefect_server, monkeypatch):
    """Prefect's client in this process speaks with the server of these tests."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_server.api}):
        yield


def working(farm, attempt):
    """The worker that has begun an attempt, which it counts in."""
    name = farm.beat(attempt, "step").worker
    return next(worker for worker in farm.workers if worker.name == name and worker.process.poll() is None)


def fresh(farm, stage, **changes):
    """The attempt at a stage that nothing is known of."""
    work = workers.work(farm.folder / "source", stage, **changes)
    farm.ledger.forget(work)
    return farm.ask(work)


def test_a_stage_is_taken_run_and_shown_in_prefect(farm, api):
    from flows.remote import pools

    attempt = fresh(farm, "first")
    outcome = farm.outcome(attempt)
    assert (outcome.state, outcome.worker in ("one", "two")) == ("succeeded", True), outcome
    farm.shown(attempt, "Completed")
    found = pools.workers("cpu", farm.ledger.store)
    assert {one.entry.name for one in found if one.online and one.entry.device == "cpu"} == {"one", "two"}
    pools.check("cpu")
    with pytest.raises(UserError, match="no worker serves pool 'gpu' now; start one: remint worker --pool gpu"):
        pools.check("gpu")
    with pytest.raises(UserError, match="there is no work pool 'cpus'; did you mean 'cpu'"):
        pools.check("cpus")


def test_a_run_that_is_due_in_an_hour_by_another_machines_clock_is_due_now(farm):
    work = workers.work(farm.folder / "source", "first")
    farm.ledger.forget(work)
    attempt = farm.ledger.open(work)
    later = datetime.now(UTC) + timedelta(hours=1)
    with farm.client() as client:
        deployment = client.read_deployment_by_name("stage/cpu")
        state = Scheduled(scheduled_time=later)
        client.create_flow_run_from_deployment(deployment.id, parameters={"place": attempt.place}, state=state)
    assert farm.outcome(attempt).state == "succeeded"


@pytest.mark.soak  # a figure, for a machine that does nothing else
def test_a_warm_worker_adds_less_than_three_seconds_to_a_stage(farm):
    took = []
    for _ in range(3):
        began = time.monotonic()
        outcome = farm.outcome(fresh(farm, "first"))
        took.append(time.monotonic() - began - outcome.seconds)
    assert min(took) < 3.0, took


def test_two_stages_run_on_two_workers_at_once_and_never_two_on_one(farm):
    hold = farm.folder / "shared" / "checkpoints" / "hold"
    hold.parent.mkdir(exist_ok=True)
    hold.touch()
    try:
        slow = fresh(farm, "slow")
        busy = working(farm, slow)
        others = {farm.outcome(fresh(farm, "first")).worker for _ in range(3)}
        assert farm.ledger.outcome(slow) is None  # at work all the while
    finally:
        hold.unlink()
    assert others == {"one", "two"} - {busy.name}
    assert farm.outcome(slow).worker == busy.name


def test_sigterm_gives_the_stage_back_within_20_s_and_another_worker_goes_on_to_the_same_bytes(farm, api):
    from flows.remote import pools

    whole = farm.outcome(fresh(farm, "slow"))
    attempt = fresh(farm, "slow")
    worker = working(farm, attempt)
    assert worker.end(20.0) < 20
    outcome = farm.outcome(attempt)
    assert (outcome.state, outcome.worker, outcome.retry) == ("given back", worker.name, True)
    assert worker.name not in {one.entry.name for one in pools.workers("cpu")}  # nobody waits for it
    again = farm.ask(attempt.work)
    second = farm.outcome(again)
    assert (second.state, second.resumed) == ("succeeded", True)
    assert second.worker != worker.name
    assert second.entry == whole.entry
    farm.start("cpu", worker.name)


def test_a_frozen_worker_that_wakes_up_too_late_publishes_nothing_and_serves_on(farm):
    attempt = fresh(farm, "slow")
    worker = working(farm, attempt)
    worker.process.send_signal(signal.SIGSTOP)
    try:
        silent = farm.ledger.last_beat(attempt)
        time.sleep(1.5)
        assert farm.ledger.last_beat(attempt) == silent
        assert farm.ledger.close(attempt, Outcome("vanished", why="no sign of life"))
        second = farm.outcome(farm.ask(attempt.work))
        assert (second.state, second.worker != worker.name) == ("succeeded", True)
    finally:
        worker.process.send_signal(signal.SIGCONT)
    worker.says("NotCounted")
    assert farm.ledger.outcome(attempt) == Outcome("vanished", why="no sign of life")
    other = next(one for one in farm.workers if one.name == second.worker and one.process.poll() is None)
    other.process.send_signal(signal.SIGSTOP)  # so that the late one has to take the next
    try:
        assert farm.outcome(fresh(farm, "first")).worker == worker.name
    finally:
        other.process.send_signal(signal.SIGCONT)


@pytest.mark.soak
def test_a_killed_worker_leaves_nothing_that_its_next_start_does_not_free(farm):
    attempt = fresh(farm, "slow")
    worker = working(farm, attempt)
    worker.kill()
    assert farm.ledger.outcome(attempt) is None  # the power was cut: somebody else has to notice
    left = worker.clone / ".remint" / "worktrees"
    assert list(left.glob("slow-*"))
    farm.ledger.close(attempt, Outcome("vanished"))
    farm.start("cpu", worker.name)
    assert not list(left.glob("slow-*"))
    assert farm.outcome(farm.ask(attempt.work)).state == "succeeded"


@pytest.mark.soak
def test_workers_outlive_their_prefect_server_with_and_without_a_stage(farm, prefect_server):
    attempt = fresh(farm, "slow")
    worker = working(farm, attempt)
    prefect_server.stop()
    assert farm.outcome(attempt).state == "succeeded"
    worker.says("the Prefect server does not answer")
    prefect_server.start()
    worker.says("the Prefect server is back")
    farm.shown(attempt, "Completed")  # told later
    assert farm.outcome(fresh(farm, "first")).state == "succeeded"
    newest = {one.name: one for one in farm.workers}  # some were killed and started again before
    assert all(one.process.poll() is None for one in newest.values())


NAP = """\
import time
from pathlib import Path
from prefect import flow

@flow(name="napping")
def nap(seconds: float):
    with Path("naps.txt").open("a") as naps:
        print("begun", file=naps, flush=True)
        try:
            for _ in range(int(seconds * 10)):
                time.sleep(0.1)
        finally:
            print("ended", file=naps, flush=True)
"""


@pytest.mark.soak
def test_flows_run_in_the_clone_any_number_at_once_and_end_with_their_worker(farm):
    clone = farm.clone("flows-napping")
    (clone / "napping.py").write_text(NAP)
    (clone / "infra").mkdir()
    nap = {"name": "nap", "entrypoint": "napping.nap", "work_pool": "flows"}
    (clone / "infra" / "prefect.yaml").write_text(yaml.safe_dump({"work_pools": {"flows": {}}, "deployments": [nap]}))
    worker = farm.start("flows", "flows-napping", REMINT_CATALOGUE=f"sqlite:///{farm.folder / 'catalogue.db'}")
    naps = worker.clone / "naps.txt"
    with farm.client() as client:
        deployment = client.create_deployment(
            client.create_flow_from_name("napping"), "nap", work_pool_name="flows", entrypoint="napping.nap"
        )
        for _ in range(2):
            body = {"parameters": {"seconds": 600}}
            client.request("POST", "/deployments/{id}/create_flow_run", None, {"id": deployment}, json=body)
    farm.wait(lambda: (naps.exists() and naps.read_text().count("begun") == 2) or None, "two flows at once", 90)
    assert worker.end(20.0) < 20
    assert naps.read_text().count("ended") == 2
    with farm.client() as client:
        named = [run.state.name for run in client.read_flow_runs() if run.deployment_id == deployment and run.state]
    assert named == ["Crashed", "Crashed"]


class TestJoining:
    """What a worker says when it cannot start: at once, in one line, with the variable that is wrong."""

    @pytest.fixture
    def clone(self, project, tmp_path, monkeypatch):
        workers.subprocess.run(
            ["git", "clone", "--quiet", str(project.parent / "origin.git"), str(tmp_path / "clone")], check=True
        )
        monkeypatch.setenv("REMINT_PREFECT_API", "http://127.0.0.1:9/api")
        return tmp_path / "clone"

    def host(self, clone, pool="cpu"):
        return join.host(settings.load(clone), pool, "w", Devices)

    def test_a_pool_that_is_none(self, clone):
        with pytest.raises(UserError, match="--pool gpus: there is no such pool; did you mean 'gpu'"):
            self.host(clone, "gpus")

    def test_a_name_that_cannot_be_one(self, clone):
        with pytest.raises(UserError, match="'../x' is not a name for a worker"):
            join.host(settings.load(clone), "cpu", "../x", Devices)

    def test_a_repository_without_origin(self, project):
        with pytest.raises(UserError, match="has no remote 'origin'"):
            join.settings_here(project)

    def test_a_prefect_server_that_is_not_named_or_not_there(self, clone, monkeypatch):
        with pytest.raises(UserError, match="REMINT_PREFECT_API=http://127.0.0.1:9/api: no Prefect server answers"):
            join.check(self.host(clone))
        monkeypatch.delenv("REMINT_PREFECT_API")
        with pytest.raises(UserError, match="REMINT_PREFECT_API is not set"):
            join.check(self.host(clone))

    @pytest.mark.parametrize(
        ("variable", "value", "pool", "words"),
        [
            ("REMINT_MLFLOW_URI", "http://127.0.0.1:9", "cpu", "REMINT_MLFLOW_URI=http://127.0.0.1:9"),
            ("REMINT_LEDGER", "s3://nobody/ledger", "cpu", "AWS_ENDPOINT_URL"),
            ("REMINT_REMOTE", "ftp://nobody/here", "cpu", "REMINT_REMOTE is neither a folder nor s3://"),
            ("REMINT_CATALOGUE", "postgresql+psycopg://x@127.0.0.1:9/y", "flows", "REMINT_CATALOGUE"),
        ],
    )
    def test_another_server_that_is_not_there(self, clone, prefect_server, monkeypatch, variable, value, pool, words):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "x")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("REMINT_PREFECT_API", prefect_server.api)
        monkeypatch.setenv(variable, value)
        began = time.monotonic()
        with pytest.raises(UserError, match=words):
            join.check(self.host(clone, pool))
        assert time.monotonic() - began < 20

    def test_a_name_that_a_living_worker_has(self, farm, api):
        host = Host(settings.load(farm.clone("one")), "one", "cpu")
        with pytest.raises(UserError, match="--name one: a worker of this name serves pool cpu now"):
            join.announce(host)


def test_several_who_make_the_pools_at_once_make_them_once(farm, api):
    from flows.remote import pools

    errors = []

    def ensure():
        try:
            pools.ensure()
        except Exception as error:
            errors.append(error)

    # each with the settings of this thread: a new one would start a server of its own
    threads = [threading.Thread(target=contextvars.copy_context().run, args=(ensure,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert {"cpu", "gpu", "flows"} <= set(pools.known())
