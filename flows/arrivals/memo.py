"""What this machine read before: so that a look at a place reads only what changed there.

Only that: whoever loses it reads everything once more, and finds by digest that nothing is new.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.arrivals.incoming import Item

TABLE = "CREATE TABLE IF NOT EXISTS seen (place TEXT, key BLOB, stamp TEXT, sha256 TEXT, PRIMARY KEY (place, key))"


class Memo:
    """Digests by place, key and stamp, in a file of SQLite. One that is broken is begun anew."""

    def __init__(self, connection: sqlite3.Connection, place: str) -> None:
        self.connection, self.place = connection, place

    def digest(self, item: Item) -> str | None:
        """The digest of a file that has not changed since it was read."""
        wanted = (self.place, os.fsencode(item.key), item.stamp)
        row = self.connection.execute(
            "SELECT sha256 FROM seen WHERE place = ? AND key = ? AND stamp = ?", wanted
        ).fetchone()
        return row[0] if row else None

    def note(self, item: Item, sha256: str) -> None:
        row = (self.place, os.fsencode(item.key), item.stamp, sha256)
        self.connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?)", row)


@contextmanager
def opened(path: Path, place: str) -> Iterator[Memo]:
    """The memo at `path` for one place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = _connect(path)
    except sqlite3.DatabaseError:
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
        connection = _connect(path)
    with contextlib.closing(connection):
        yield Memo(connection, place)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        connection.close()
        raise sqlite3.DatabaseError("damaged")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = OFF")  # it may be lost
    connection.execute(TABLE)
    return connection
