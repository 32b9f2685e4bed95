"""Who waits for an attempt: when a worker counts as gone, in the waiting process's own time."""

import pytest

from data.core.params import UserError
from flows.remote import orders, watch
from flows.remote.ledger import Beat, Ledger, Outcome, Work
from flows.remote.watch import Watch
from flows.storage.folder import FolderBucket


class Clock:
    """Time that passes when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(watch, "time", made)
    return made


@pytest.fixture
def waiting(tmp_path, monkeypatch, clock):
    """(ledger, watch of an open attempt, what it said); Prefect always answers that the flow run waits."""
    for name, answer in (("place", "id"), ("stand", "waiting"), ("end", None)):
        monkeypatch.setattr(orders, name, lambda *_, answer=answer, **__: answer)
    ledger = Ledger(FolderBucket(tmp_path))
    attempt = ledger.open(Work("base", "ab" * 32, "c" * 40, {}, "run", "cpu"))
    said = []
    return ledger, Watch(ledger, attempt, 30.0, lambda text, whole: said.append(text), lambda: True), said


def pass_time(watched, clock, seconds, step=1.0):
    outcome = None
    for _ in range(int(seconds / step)):
        clock.now += step
        outcome = watched.poll()
    return outcome


def test_a_worker_that_beats_is_never_given_up_and_one_that_is_silent_is(waiting, clock):
    ledger, watched, said = waiting
    for count in range(1, 20):
        ledger.beat(watched.attempt, Beat(count, "w", f"step {count}"))
        assert pass_time(watched, clock, 20) is None
    assert said[:2] == ["attempt 1: w has begun", "step 1"]
    assert pass_time(watched, clock, 9) is None
    assert pass_time(watched, clock, 5) == Outcome("vanished", why="w gave no sign of life for 30 s")
    assert ledger.outcome(watched.attempt).state == "vanished"


def test_a_waiting_process_that_was_suspended_gives_nobody_up_for_that(waiting, clock):
    ledger, watched, _ = waiting
    ledger.beat(watched.attempt, Beat(1, "w"))
    assert watched.poll() is None
    clock.now += 7200.0  # a closed lid; nobody looked
    assert watched.poll() is None
    ledger.beat(watched.attempt, Beat(2, "w"))
    assert pass_time(watched, clock, 5) is None


def test_time_in_which_the_ledger_did_not_answer_is_no_silence_of_the_worker(waiting, clock, monkeypatch):
    ledger, watched, _ = waiting
    ledger.beat(watched.attempt, Beat(1, "w"))
    pass_time(watched, clock, 20)

    def away(attempt):
        raise UserError("the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "outcome", away)
        assert pass_time(watched, clock, 290, step=10) is None
        with pytest.raises(UserError, match="does not answer"):
            pass_time(watched, clock, 50, step=10)
    assert pass_time(watched, clock, 5) is None


def test_an_attempt_that_waits_for_a_busy_pool_waits_for_good_and_for_a_pool_without_workers_minutes(waiting, clock):
    _, watched, said = waiting
    assert pass_time(watched, clock, 5000) is None
    assert said[-1] == "waits for a worker of pool cpu"
    watched.served = lambda: False
    assert pass_time(watched, clock, 290) is None
    outcome = pass_time(watched, clock, 60)
    assert outcome.state == "failed"
    assert not outcome.retry
    assert "nobody has served pool cpu" in outcome.why


def test_what_an_attempt_costs_is_its_time_till_the_worker_says_more(waiting, clock):
    ledger, watched, _ = waiting
    pass_time(watched, clock, 10)
    assert watched.usage().seconds == 0
    ledger.beat(watched.attempt, Beat(1, "w"))
    pass_time(watched, clock, 10)
    assert watched.usage().seconds == 9  # since the first beat was seen
    ledger.close(watched.attempt, Outcome("succeeded", usage=watch.Usage(seconds=4.0, cpu_seconds=3.0)))
    pass_time(watched, clock, 1)
    assert watched.usage().cpu_seconds == 3.0


def test_an_attempt_that_was_given_up_costs_no_more(waiting, clock):
    ledger, watched, _ = waiting
    ledger.beat(watched.attempt, Beat(1, "w"))
    pass_time(watched, clock, 40)
    assert watched.outcome.state == "vanished"
    clock.now += 1000
    assert watched.usage().seconds < 60


def test_a_worker_that_takes_an_attempt_after_a_long_wait_gets_its_time_to_begin(waiting, clock, monkeypatch):
    ledger, watched, _ = waiting
    pass_time(watched, clock, 600)
    monkeypatch.setattr(orders, "stand", lambda _: "taken")
    assert pass_time(watched, clock, 25) is None
    ledger.beat(watched.attempt, Beat(1, "w"))
    assert pass_time(watched, clock, 20) is None


def test_a_store_that_cannot_be_written_for_a_moment_does_not_fail_the_stage(waiting, clock, monkeypatch):
    ledger, watched, _ = waiting
    ledger.beat(watched.attempt, Beat(1, "w"))
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "close", lambda *_: (_ for _ in ()).throw(UserError("full")))
        assert pass_time(watched, clock, 60) is None
    assert pass_time(watched, clock, 2).state == "vanished"
