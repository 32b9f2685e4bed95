"""The journal shows every change of its past, and the database refuses to make one."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from flows.catalogue import database, journal
from flows.catalogue.schema import Entry
from flows.settings import Settings

pytestmark = pytest.mark.integration
NO_LONGER_FITS = "journal entry 4 does not follow entry 3: one of the two was put in or replaced"
COLUMNS = "seq, kind, subject, body, at, previous, digest"


@pytest.fixture
def catalogue(tmp_path, database_address) -> database.Catalogue:
    """With five entries in its journal."""
    opened = database.open(Settings(root=tmp_path, catalogue=database_address))
    with opened.begin() as session:
        for number in range(1, 6):
            journal.append(session, "release", "images", {"number": number, "who": "Ünal", "psnr": 24.1})
    return opened


def unlock(session) -> None:
    """Do what somebody must do first who wants to change the past."""
    if session.get_bind().dialect.name == "sqlite":
        for event in ("UPDATE", "DELETE"):
            session.execute(text(f"DROP TRIGGER journal_keeps_on_{event}"))
    else:
        session.execute(text("DROP TRIGGER journal_keeps ON journal"))


def after(catalogue, *statements: str) -> list[str]:
    """What is wrong after somebody has changed the tables by hand."""
    with catalogue.begin() as session:
        unlock(session)
        for statement in statements:
            session.execute(text(statement))
    with catalogue.read() as session:
        return journal.verify(session)


def test_an_untouched_journal_is_right(catalogue):
    with catalogue.read() as session:
        assert journal.verify(session) == []
        assert [entry.seq for entry in session.scalars(select(Entry).order_by(Entry.seq))] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("statement", ["UPDATE journal SET subject = 'depth'", "DELETE FROM journal WHERE seq = 5"])
def test_the_database_refuses_to_change_or_delete_an_entry(catalogue, statement):
    with pytest.raises(DBAPIError, match="the journal is append-only"), catalogue.begin() as session:
        session.execute(text(statement))
    with catalogue.read() as session:
        assert journal.verify(session) == []


@pytest.mark.parametrize("change", ["body = '{}'", "subject = 'depth'", "kind = 'rollback'", "at = '2026-01-01'"])
def test_a_changed_entry_is_named(catalogue, change):
    if catalogue.engine.dialect.name == "sqlite":
        change = change.replace("2026-01-01", "2026-01-01 00:00:00.000000")
    wrong = after(catalogue, f"UPDATE journal SET {change} WHERE seq = 3")
    assert len(wrong) == 1
    assert wrong[0].startswith("journal entry 3 (")
    assert wrong[0].endswith("was changed")


def test_a_changed_entry_with_a_new_digest_no_longer_fits_the_next(catalogue):
    with catalogue.begin() as session:
        unlock(session)
        entry = session.get_one(Entry, 3)
        entry.subject = "depth"
        entry.digest = journal.digest(entry)
    with catalogue.read() as session:
        assert journal.verify(session) == [
            "journal entry 4 does not follow entry 3: one of the two was put in or replaced"
        ]


def test_the_last_entry_with_a_new_digest_no_longer_fits_the_end(catalogue):
    with catalogue.begin() as session:
        unlock(session)
        entry = session.get_one(Entry, 5)
        entry.subject = "depth"
        entry.digest = journal.digest(entry)
    with catalogue.read() as session:
        assert journal.verify(session) == ["journal entry 5, the last, was replaced"]


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("seq = 2", ["journal entry 2 is missing"]),
        ("seq IN (1, 2)", ["journal entries 1 to 2 are missing"]),
        ("seq >= 4", ["journal entries 4 to 5 are missing at the end"]),
        ("seq > 0", ["journal entries 1 to 5 are missing at the end"]),
    ],
)
def test_a_deleted_entry_is_named_also_the_last(catalogue, where, says):
    assert after(catalogue, f"DELETE FROM journal WHERE {where}") == says


def test_an_entry_put_in_between_is_named(catalogue):
    wrong = after(
        catalogue,
        "UPDATE journal SET seq = seq + 10 WHERE seq > 3",
        "UPDATE journal SET seq = seq - 9 WHERE seq > 10",
        f"INSERT INTO journal ({COLUMNS}) "
        "SELECT 4, kind, subject, '{}', at, previous, 'forged' FROM journal WHERE seq = 3",
    )
    assert NO_LONGER_FITS in wrong
    assert "journal entry 4 (release of images) was changed" in wrong


def test_an_entry_put_in_at_the_end_is_named(catalogue):
    with catalogue.begin() as session:
        last = session.get_one(Entry, 5)
        forged = Entry(seq=6, kind="release", subject="images", body="{}", at=last.at, previous=last.digest)
        forged.digest = journal.digest(forged)
        session.add(forged)
    with catalogue.read() as session:
        assert journal.verify(session) == ["journal entry 6 is put in behind the journal's end"]


def test_a_clock_that_goes_backwards_changes_neither_order_nor_chain(catalogue, monkeypatch):
    class Clock(datetime):
        times = iter([datetime(2026, 1, 1, tzinfo=UTC) - timedelta(days=day) for day in range(10)])

        @classmethod
        def now(cls, tz=None):
            return next(cls.times)

    monkeypatch.setattr(journal, "datetime", Clock)
    with catalogue.begin() as session:
        entries = [journal.append(session, "release", "images", {"number": number}) for number in (6, 7, 8)]
        assert entries[0].at > entries[2].at
    with catalogue.read() as session:
        assert journal.verify(session) == []
        assert [entry.seq for entry in session.scalars(select(Entry).order_by(Entry.seq))][-3:] == [6, 7, 8]
