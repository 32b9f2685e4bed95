"""One attempt as its run sees it: what Prefect's states mean without an outcome, and when it is lost."""

import contextlib
import threading
import uuid

import pytest

from data.core.params import UserError
from flows.stage.process import Stopped
from flows.stage.spending import Usage
from flows.storage.folder import FolderBucket
from flows.storage.protocol import Denied
from flows.workers import flowruns, pools, watch
from flows.workers.flowruns import Away, Seen
from flows.workers.orders import Ended, Order, Orders
from flows.workers.pools import Served
from flows.workers.watch import Watches

AWAY = Away("the Prefect server does not answer")
ORDER = Order("train", "k" * 64, "c" * 40, {}, "run", "gpu")


class World:
    """A server that shows what it is told to, and a clock that goes as fast as wanted."""

    def __init__(self, folder, monkeypatch):
        self.now, self.seen, self.ended, self.said = 1000.0, Seen("SCHEDULED"), [], []
        self.served = Served("kubernetes", None, ("w",))
        self.orders = Orders(FolderBucket(folder, "REMINT_LEDGER"))
        self.attempt = self.orders.open(ORDER, 1)
        monkeypatch.setattr(watch.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(flowruns, "client", contextlib.nullcontext)
        monkeypatch.setattr(flowruns, "submit", lambda api, attempt, known: self.answer(uuid.UUID(int=1)))
        monkeypatch.setattr(flowruns, "look", lambda api, runs: self.answer(dict.fromkeys(runs, self.seen)))
        monkeypatch.setattr(flowruns, "end", lambda flow_run, why, *, cancelled: self.ended.append((why, cancelled)))
        monkeypatch.setattr(pools, "served", lambda api, pool: self.answer(self.served))
        self.away = None
        self.watches = Watches(self.orders, 100.0)
        self.watch = self.watches.add(self.attempt, lambda text, whole: self.said.append(text))

    def answer(self, value):
        if self.away:
            raise self.away
        return value

    def passes(self, seconds):
        """Look every two seconds for so long; what came of the attempt."""
        until = self.now + seconds
        while self.now < until and self.watch.ended is None:
            self.watches.look()
            if self.watch.error:
                raise self.watch.error
            self.now += 2.0
        return self.watch.ended

    def works(self, text="step 1", seconds=0.0):
        self.seen = Seen("RUNNING", beat=str(seconds), words=text)


@pytest.fixture
def world(tmp_path, monkeypatch):
    return World(tmp_path, monkeypatch)


def test_words_are_passed_on_and_the_outcome_is_taken_with_what_it_cost(world):
    assert world.passes(4) is None
    world.works("step 7")
    assert world.passes(10) is None
    assert "waits for a worker of pool gpu" in world.said
    assert "step 7" in world.said
    assert world.watch.usage().seconds >= 8
    done = Ended("succeeded", usage=Usage(seconds=3.0))
    world.orders.close(world.attempt, done)
    assert world.passes(4) is None  # it is read when Prefect says that its flow run is over
    world.seen = Seen("COMPLETED")
    assert world.passes(4) == done
    assert world.watch.usage() == done.usage


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        (Seen("CRASHED", "It gave no heartbeat."), Ended("lost", why="It gave no heartbeat.")),
        (Seen("COMPLETED"), Ended("lost", why="its worker ended")),
        (Seen("CANCELLED"), Ended("failed", why="was cancelled in Prefect", retry=False)),
        (Seen("FAILED", "no clone"), Ended("rejected", why="no clone", retry=False)),
    ],
)
def test_a_flow_run_that_is_over_without_an_outcome(world, state, ended):
    world.seen = state
    assert world.passes(4) == ended


def test_who_gives_no_sign_of_life_is_lost_and_what_it_says_later_is_harmless(world):
    world.works()
    assert world.passes(98) is None
    world.works(seconds=98)  # a heartbeat
    assert world.passes(98) is None
    assert world.passes(20) == Ended("lost", why="it gave no sign of life for 100 s")
    assert world.ended == [("it gave no sign of life for 100 s", False)]
    assert world.orders.close(world.attempt, Ended("succeeded"))  # and the next run finds it


def test_a_server_that_is_away_loses_nobody_and_is_given_up_after_ten_minutes(world):
    world.works()
    world.passes(10)
    world.away = AWAY
    assert world.passes(500) is None
    world.away = None
    assert world.passes(90) is None
    world.away = AWAY
    with pytest.raises(UserError, match="does not answer"):
        world.passes(700)


def test_an_outcome_needs_no_server(world):
    world.works()
    world.passes(4)
    world.away = AWAY
    world.orders.close(world.attempt, Ended("succeeded"))
    assert world.passes(10) == Ended("succeeded")


def test_a_server_that_refuses_the_login_is_said_at_once(world):
    world.away = Denied("set PREFECT_API_AUTH_STRING")
    with pytest.raises(UserError, match="set PREFECT_API_AUTH_STRING"):
        world.passes(4)


def test_a_pool_that_nobody_serves_any_more_ends_the_wait_with_one_line(world):
    world.served = Served("process", None, ())
    ended = world.passes(400)
    assert (ended.state, ended.retry) == ("failed", False)
    assert ended.why.endswith("start one: remint worker --pool gpu")


@pytest.mark.parametrize(("kind", "patience"), [("process", 120), ("kubernetes", 900)])
def test_a_worker_that_took_it_and_never_began_is_lost_the_later_the_longer_a_start_may_take(world, kind, patience):
    world.served = Served(kind, None, ("w",))
    world.seen = Seen("PENDING")
    assert world.passes(patience - 10) is None
    assert world.passes(30).state == "lost"


def test_a_run_that_is_stopped_gives_its_attempt_back(world):
    world.works()
    world.passes(4)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        world.watches.wait([world.watch], stop)
    assert world.ended == [("the run was stopped", True)]
    assert world.orders.ended(world.attempt) == Ended("preempted", why="the run was stopped")
    other = world.watches.add(world.orders.open(ORDER, 2), lambda text, whole: None)
    world.orders.close(other.attempt, Ended("succeeded"))
    world.seen = Seen("COMPLETED")
    world.now += 10
    assert world.watches.wait([other], threading.Event()) == [Ended("succeeded")]
