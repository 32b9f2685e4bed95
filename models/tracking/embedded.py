"""MLflow's embedded store: a SQLite file with the files of runs and models beside it, wherever the checkout lies.

MLflow keeps absolute addresses. What a folder's name may hold is escaped in them, and when the checkout has been moved
or copied they are corrected to where the files lie now.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

FILES = "mlflow"  # the folder beside the database, with one folder per experiment
ADDRESSES = (  # what may name a file of an experiment
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def database_uri(file: Path, driver: str = "") -> str:
    """The address of a SQLite file for SQLAlchemy, with its driver's name if one is given.

    What has a meaning in addresses is escaped in one of SQLite's own: SQLAlchemy 2.0 reads no escapes.
    """
    if not re.search(r"[%?\x00-\x1f\x7f]", str(file)):
        return f"sqlite{driver and '+'}{driver}:///{file}"
    escaped = re.sub(r"[%?#\x00-\x1f\x7f]", lambda found: f"%{ord(found[0]):02X}", str(file))
    return f"sqlite+{driver or 'pysqlite'}:///file:{escaped}?uri=true"


def database_file(uri: str) -> Path | None:
    """The file of a SQLite address, None for any other database."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///(file:)?([^?]+)(?:\?.*)?", uri, re.DOTALL)
    return Path(unquote(found[2]) if found[1] else found[2]) if found else None


def location(database: Path, experiment: str) -> str:
    """Where the files of an experiment lie: a path, or an address where MLflow would read something into the path."""
    path = database.absolute().parent / FILES / experiment
    return path.as_uri() if re.search(r"""[%?#:'"\x00-\x1f\x7f]""", str(path)) else str(path)


def make(uri: str) -> None:
    """Make an embedded store that is not there yet: MLflow would put its first experiment into the current folder."""
    database = database_file(uri)
    if database is not None and not database.exists():
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(uri, location(database, ""))._dispose_engine()


def folder_of(address: str) -> Path:
    """The folder of an address; of one that is no local folder, a path that is nowhere."""
    parts = urlsplit(address)
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(address)


def find_files_again(uri: str) -> str:
    """Correct the addresses of an embedded store that was moved or copied; returns where its files were, or "".

    Only experiments whose folder lies beside the database now are touched.
    """
    database = database_file(uri)
    if database is None or not database.is_file():
        return ""
    try:
        with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
            if not list(_moved(connection, database)):
                return ""
            connection.execute("BEGIN IMMEDIATE")
            moved = list(_moved(connection, database))  # another process may just have done it
            for old, new in moved:
                _correct(connection, old, new)
            connection.execute("COMMIT")
    except sqlite3.Error:  # no store of MLflow's, or one that is being made: MLflow itself says what is wrong with it
        return ""
    return str(folder_of(moved[0][0]).parent) if moved else ""


def restore_model(uri: str, model: str) -> None:
    """Take back the deletion of a model, for which MLflow has no call; its files stay until `mlflow gc`."""
    database = database_file(uri)
    assert database is not None
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        connection.execute("UPDATE logged_models SET lifecycle_stage = 'active' WHERE model_id = ?", (model,))


def _moved(connection: sqlite3.Connection, database: Path) -> Iterator[tuple[str, str]]:
    """Old and new address of each experiment that was beside a database which lies elsewhere now."""
    for (old,) in connection.execute("SELECT artifact_location FROM experiments WHERE artifact_location != ''"):
        was = folder_of(old)
        new = location(database, was.name)
        here = folder_of(new)
        if was.parent.name == FILES and here.is_dir() and not (was.exists() and was.samefile(here)):
            yield old, new


def _correct(connection: sqlite3.Connection, old: str, new: str) -> None:
    for table, column in ADDRESSES:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
            (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
        )
