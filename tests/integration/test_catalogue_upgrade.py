"""A catalogue of an earlier revision, with rows in it, is brought to this checkout's revision and loses nothing."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, MetaData, inspect, text

from flows.catalogue import database, migrate, schema
from flows.settings import Settings

pytestmark = pytest.mark.integration
RUN = {
    "id": "20260101T000001Z-aaaaaaa", "seq": 1, "tag": "run/20260101T000001Z-aaaaaaa", "commit": "c" * 40,
    "base_commit": "b" * 40, "trigger": "retrain", "parameters": "p", "environment": "e", "machine": "x86_64",
    "state": "failed", "started": datetime(2026, 1, 1, tzinfo=UTC), "ended": datetime(2026, 1, 2, tzinfo=UTC),
}  # fmt: skip
ROW = {"run_id": RUN["id"], "input_digest": "i", "output_digest": "o", "host": "h"}
EXECUTIONS = [
    ROW | {"id": 1, "stage": "scenes", "seconds": 12.5, "action": "ran"},
    ROW | {"id": 2, "stage": "proxy", "seconds": 0.0, "action": "failed"},
]


@pytest.fixture
def settings(tmp_path: Path, database_address: str) -> Settings:
    return Settings(root=tmp_path, catalogue=database_address)


@pytest.fixture
def earlier(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The database as revision 0001 left it, with a run of two stages and an entry of the journal."""
    engine = database.connect(settings)
    with monkeypatch.context() as then:
        then.setattr(migrate, "REVISION", "0001")
        migrate.to_head(engine, "catalogue")
    tables = MetaData()
    with engine.begin() as connection:
        assert migrate.revision(connection) == "0001"
        tables.reflect(connection)
        connection.execute(tables.tables["run"].insert(), [RUN])
        connection.execute(tables.tables["execution"].insert(), EXECUTIONS)
        connection.execute(
            text(
                "INSERT INTO journal (seq, kind, subject, body, at, previous, digest) "
                "VALUES (1, 'release', 'images', '{}', '2026-01-01 00:00:00', '', 'd')"
            )
        )
    yield engine
    engine.dispose()


def executions(engine: Engine) -> list[dict[str, Any]]:
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(text("SELECT * FROM execution ORDER BY id")).mappings()]


def test_rows_of_revision_0001_stay_and_their_seconds_become_machine_seconds(earlier, settings):
    before = executions(earlier)
    database.open(settings).close()
    after = executions(earlier)
    assert [{key: row[key] for key in old} for row, old in zip(after, before, strict=True)] == before
    assert [row["machine_seconds"] for row in after] == [12.5, None]
    assert {row[name] for row in after for name in ("cpu_seconds", "gpu_seconds", "bytes_in", "peak_memory")} == {None}


def test_an_upgraded_catalogue_is_the_one_that_a_new_checkout_makes(earlier, settings):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.open(settings).engine.connect() as connection:
        options = {"version_table": migrate.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.Base.metadata) == []


def test_the_journal_stays_append_only(earlier, settings):
    from sqlalchemy.exc import DBAPIError

    catalogue = database.open(settings)
    with pytest.raises(DBAPIError, match="append-only"), catalogue.engine.begin() as connection:
        connection.execute(text("DELETE FROM journal"))


def test_an_upgrade_that_is_broken_off_leaves_revision_0001(earlier, settings, monkeypatch):
    upgrade = migrate._upgrade

    def broken_off(connection: Any) -> None:
        upgrade(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(migrate, "_upgrade", broken_off)
    with pytest.raises(KeyboardInterrupt):
        database.open(settings)
    columns = [column["name"] for column in inspect(earlier).get_columns("execution")]
    assert "machine_seconds" not in columns
    with earlier.connect() as connection:
        assert migrate.revision(connection) == "0001"


def test_four_processes_that_open_an_earlier_catalogue_at_once_upgrade_it_once(earlier, settings):
    earlier.dispose()
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=lambda: database.open(settings).close()) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert [row["machine_seconds"] for row in executions(earlier)] == [12.5, None]
