"""`remint gc` and the bucket of orders, a folder and S3: what dead runs left there goes, what others wait for stays."""

from pathlib import Path

import pytest

from data.core.params import UserError
from flows.garbage import attempts, collect
from flows.garbage.place import InTheWay, Place
from flows.settings import Settings
from flows.workers import orders
from flows.workers.orders import Attempt, Ended, Order, Orders

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path: Path, production: str) -> Place:
    return Place(Settings(root=tmp_path, ledger=production), frozenset(["a run"]), 0.0, grace=0.0)


@pytest.fixture
def book(place: Place) -> Orders:
    return orders.opened(place.settings)


def opened(book: Orders, stage: str, key: str, number: int = 1) -> Attempt:
    return book.open(Order(stage, key * 64, "c" * 40, {}, "a run", "cpu"), number)


def test_what_nobody_has_touched_for_a_day_goes_with_all_its_attempts(place, book, monkeypatch):
    left = opened(book, "right@a", "1")
    book.close(left, Ended("preempted"))
    opened(book, "right@a", "1", 2)
    part = book.open(left.order.of_part(2, 4), 1)
    book.open(Order("", "2" * 64, "c" * 40, {}, "a run", "flows"), 1)
    with attempts.guard(place):
        assert list(attempts.find(place)) == []  # younger than a day
        monkeypatch.setattr(attempts, "LEAST_SECONDS", -5.0)  # S3 says the second only
        place = Place(place.settings, place.living, 0.0, grace=-5.0)
        found = list(attempts.find(place))
    assert [item.what.removeprefix(f"{book.store.name}/") for item in found] == [
        f"runs/{'2' * 64}/whole",
        f"stages/right@a/{'1' * 64}/part-2-of-4",
        f"stages/right@a/{'1' * 64}/whole",
    ]
    assert all(item.bytes > 100 for item in found)
    for item in found[1:]:
        collect.KINDS[item.kind].delete(place, item)
    assert book.attempts(left.order) == []
    assert not book.close(part, Ended("succeeded"))  # its worker comes too late, and leaves nothing
    assert book.store.list("runs/") != []


def test_a_ledger_that_cannot_be_asked_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    for address in ("s3://no-such-bucket/x", "ftp://user:secret@x"):
        with pytest.raises(InTheWay, match="REMINT_LEDGER cannot be asked") as error:
            list(attempts.find(Place(Settings(root=tmp_path, ledger=address), frozenset(), 0.0, 0.0)))
        assert "secret" not in str(error.value)


def test_a_name_that_leaves_the_ledger_deletes_nothing(place, book):
    kept = opened(book, "base", "1")
    with pytest.raises(UserError, match="is not a key"):
        attempts.delete(place, attempts.Garbage("attempt", f"{place.settings.ledger}/../..", 0, ""))
    assert book.attempts(kept.order) == [kept]
