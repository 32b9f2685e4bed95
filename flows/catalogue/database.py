"""The catalogue's database: SQLite in a file, or PostgreSQL.

    catalogue = database.open(settings)
    with catalogue.begin() as session:      # reads and writes, alone
        ...
    with catalogue.read() as session:       # reads one state, and waits for nobody
        ...

Writers take turns on both databases: what one has read stays true until it has committed, and no two can wait for each
other. So a transaction is short: what takes long is worked out before it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.orm import Session

from data.core.params import UserError
from flows.catalogue import migrate
from flows.settings import Settings
from models.tracking.embedded import database_file

DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
}
WAIT_SECONDS = 60  # for the writers before this one
RESTART_SECONDS = 20.0  # how long a server may be away between two transactions
WRITERS = migrate.LOCK + 1  # PostgreSQL's advisory lock that a writer holds

Result = TypeVar("Result")


class Gone(UserError):
    """The server went away in the middle of a transaction."""


class Catalogue:
    """An open, migrated database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = _name(engine.url)  # for messages
        self._server = engine.dialect.name == "postgresql"
        self._writing = engine.execution_options(begin="IMMEDIATE")
        self._reading = engine.execution_options(isolation_level="REPEATABLE READ") if self._server else engine

    @contextlib.contextmanager
    def begin(self) -> Iterator[Session]:
        """One transaction, committed at the end, undone by an error; no other writer works meanwhile.

        A server that restarted since the last transaction is connected to again. UserError if it went away in the
        middle (Gone), or the database is full, read-only or held by another writer for too long.
        """
        with self._session(self._writing) as session:
            if self._server:
                session.execute(text(f"SET LOCAL lock_timeout = '{WAIT_SECONDS}s'"))
                session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": WRITERS})
            yield session
            session.commit()

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """One state of the catalogue to read from, while another process may write."""
        with self._session(self._reading) as session:
            yield session

    def write(self, work: Callable[[Session], Result]) -> Result:
        """`work` in one transaction, and once more if the server goes away meanwhile: `work` must bear to be repeated.

        It is then repeated even if the server had just committed, so it must also see what it did before.
        """
        for last in (False, True):
            try:
                with self.begin() as session:
                    return work(session)
            except Gone:
                if last:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        self.engine.dispose()

    @contextlib.contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        """A session in a transaction that has begun; what goes wrong with the database becomes a UserError."""
        try:
            with Session(engine) as session:
                self._connect(session)
                yield session
        except DBAPIError as error:
            if error.connection_invalidated:
                raise Gone(
                    f"the catalogue {self.name} went away in the middle ({_words(error)}); what it was told is stored "
                    "whole or not at all: run the command again"
                ) from error
            if isinstance(error, OperationalError):
                raise UserError(f"the catalogue {self.name}: {_words(error)}; see REMINT_CATALOGUE") from error
            raise

    def _connect(self, session: Session) -> None:
        """Begin the transaction; a server that is just restarting is waited for."""
        until = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                session.connection()
            except OperationalError:
                if not self._server or time.monotonic() > until:
                    raise
                session.rollback()
                time.sleep(0.2)
            else:
                return


def open(settings: Settings) -> Catalogue:
    """The catalogue of the settings, created and migrated where needed.

    UserError when it cannot be reached, is no catalogue, or belongs to a newer checkout.
    """
    engine = connect(settings)
    name = _name(engine.url)
    try:
        migrate.to_head(engine, name)
    except DBAPIError as error:
        raise UserError(f"cannot open the catalogue {name}: {_words(error)}; see REMINT_CATALOGUE") from error
    return Catalogue(engine)


def exists(settings: Settings) -> bool:
    """Whether there may be a catalogue; False where a SQLite file has yet to be made."""
    url = _url(settings.catalogue)
    file = database_file(str(url))
    return file is None or file.exists()


def connect(settings: Settings) -> Engine:
    """The database of the settings as it is, not migrated; UserError if they name none."""
    url = _url(settings.catalogue)
    return _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)


def _url(address: str) -> URL:
    expected = "expected sqlite:////folder/file.db or postgresql://user:password@host/database"
    try:
        url = make_url(address)
    except ArgumentError:
        raise UserError(f"REMINT_CATALOGUE is not the address of a database; {expected}") from None
    if url.drivername not in (*DRIVERS, *DRIVERS.values()):
        raise UserError(f"REMINT_CATALOGUE names a database of kind '{url.drivername}'; {expected}")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise UserError(f"REMINT_CATALOGUE={address} names no file; {expected}")
    return url.set(drivername=DRIVERS.get(url.drivername, url.drivername))


def _sqlite(url: URL) -> Engine:
    migrate.file_of(url).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": WAIT_SECONDS})

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # sqlite3 would begin transactions late, and not before a table is created
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")

    return engine


def _postgresql(url: URL) -> Engine:
    known = {} if "connect_timeout" in url.query else {"connect_timeout": 10}
    return create_engine(url, pool_pre_ping=True, connect_args=known)


def _name(url: URL) -> str:
    """The address for messages, without a password."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string(hide_password=True)


def _words(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
