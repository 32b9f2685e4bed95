"""Bring a catalogue's tables to this checkout's revision, once, however many processes start at the same time.

Alembic takes half a second to import, so it is asked only when the revision in the database is not the one of
`schema.REVISION`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, inspect, text

from data.core import locks
from data.core.params import UserError
from flows.catalogue.schema import REVISION
from models.tracking.embedded import database_file

SCRIPTS = Path(__file__).parents[2] / "infra" / "migrations"
VERSION_TABLE = "catalogue_version"  # not Alembic's usual name: MLflow and Prefect may live in the same database
LOCK = 0x72656D696E74  # of PostgreSQL's advisory locks: "remint"


def to_head(engine: Engine, name: str) -> None:
    """Create or upgrade the tables where needed; UserError when they are of a newer revision than this checkout."""
    with engine.connect() as connection:
        if revision(connection) == REVISION:
            return
    with _locked(engine) as connection:
        found = revision(connection)
        if found == REVISION:
            return  # another process was faster
        known = {path.name.partition("_")[0] for path in (SCRIPTS / "versions").glob("*.py")}
        if found is not None and found not in known:
            raise UserError(
                f"the catalogue {name} is of revision {found}, this checkout knows them up to {REVISION}; update the "
                "checkout (git pull), or name another catalogue with REMINT_CATALOGUE"
            )
        _upgrade(connection)


def revision(connection: Connection) -> str | None:
    """The revision of the tables in a database, None where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def file_of(url: URL) -> Path:
    """The file of a SQLite database."""
    file = database_file(str(url))
    assert file is not None
    return file


@contextlib.contextmanager
def _locked(engine: Engine) -> Iterator[Connection]:
    """A transaction during which no other process migrates; killed in the middle, it leaves what was there."""
    if engine.dialect.name == "postgresql":
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield connection
        return
    path = file_of(engine.url)
    # the change to WAL does not wait for others as a transaction does
    with locks.held(path.with_name(f"{path.name}.lock")), engine.connect() as connection:
        with contextlib.closing(connection.connection.cursor()) as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA foreign_keys = OFF")  # a table that is copied is dropped under its references
        with connection.execution_options(begin="IMMEDIATE").begin():
            yield connection
        connection.invalidate()  # the pool shall not keep a connection without foreign keys


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))  # the option is read as an ini text
    command.upgrade(config, REVISION)
