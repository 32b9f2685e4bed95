"""The ledger of attempts: opened once, closed once, whoever races, in a folder and in a real S3."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from data.core.params import UserError
from flows.remote.ledger import Beat, Ledger, Outcome, Usage, Work, part
from flows.storage import bucket
from flows.storage.protocol import NotThere

pytestmark = pytest.mark.integration

WORK = Work("generator@maskgit", "ab" * 32, "c" * 40, {"tokens": {"cmd": "x"}}, "20261121T100000Z-1a2b3c4", "gpu")


@pytest.fixture
def ledger(production):
    return Ledger(bucket.at(production, "REMINT_LEDGER"))


def test_an_attempt_is_read_back_as_it_was_opened(ledger):
    work = part(WORK, 2, 4)
    opened = ledger.open(work)
    assert opened is not None
    assert opened.number == 1
    assert ledger.attempt(opened.place) == opened
    assert ledger.attempts(work) == [opened]
    assert ledger.attempts(WORK) == []  # the whole stage is other work than a part of it


def test_of_many_who_open_or_close_at_once_one_does(ledger):
    with ThreadPoolExecutor(8) as pool:
        numbers = [one.number for one in pool.map(lambda _: ledger.open(WORK), range(8)) if one]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))  # each number has one owner
    first = ledger.attempts(WORK)[0]
    states = [Outcome("succeeded", worker="late", entry={"outs": []}), *[Outcome("vanished")] * 7]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda outcome: ledger.close(first, outcome), states))
    assert won.count(True) == 1
    assert ledger.outcome(first) == states[won.index(True)]


def test_a_worker_that_was_given_up_learns_so_and_cannot_publish(ledger):
    attempt = ledger.open(WORK)
    assert attempt is not None
    assert ledger.outcome(attempt) is None
    assert ledger.close(attempt, Outcome("vanished", why="no sign of life for 30 s"))
    assert not ledger.close(attempt, Outcome("succeeded", worker="a", usage=Usage(seconds=3.0)))
    found = ledger.outcome(attempt)
    assert found is not None
    assert found.state == "vanished"
    again = ledger.open(WORK)
    assert again is not None
    assert again.number == 2


def test_beats_replace_each_other_and_tell_that_somebody_works(ledger):
    attempt = ledger.open(WORK)
    assert attempt is not None
    assert ledger.last_beat(attempt) is None
    for count in (1, 2):
        ledger.beat(attempt, Beat(count, "worker-1", f"step {count}"))
    assert ledger.last_beat(attempt) == Beat(2, "worker-1", "step 2")


def test_forgotten_work_leaves_nothing(ledger):
    attempt = ledger.open(WORK)
    assert attempt is not None
    ledger.beat(attempt, Beat(1, "worker-1"))
    ledger.close(attempt, Outcome("failed", why="x"))
    ledger.forget(WORK)
    assert ledger.store.list("") == []
    with pytest.raises(NotThere):
        ledger.attempt(attempt.place)


def test_a_worker_of_a_forgotten_attempt_cannot_publish_into_a_later_one_at_its_place(ledger):
    late = ledger.open(WORK)
    assert late is not None
    ledger.forget(WORK)
    assert ledger.outcome(late).state == "vanished"
    assert not ledger.close(late, Outcome("succeeded"))
    ledger.beat(late, Beat(7, "late"))  # it does not know yet
    again = ledger.open(WORK)
    assert again is not None
    assert again.place != late.place  # over the stray beat
    ledger.forget(WORK)
    anew = ledger.open(WORK)
    assert anew is not None
    assert anew.place == late.place
    assert not ledger.close(late, Outcome("succeeded"))
    assert ledger.outcome(anew) is None


def test_a_ledger_that_is_no_place_names_its_variable():
    with pytest.raises(UserError, match="REMINT_LEDGER is neither"):
        bucket.at("gs://somewhere/else", "REMINT_LEDGER")
