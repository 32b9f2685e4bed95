"""The place where photographs arrive, a folder or a prefix in S3, and a memo of what was read there.

Nothing there is moved or removed. A name is text and never becomes a path: it may hold spaces, newlines, any Unicode,
or `../`.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.core.params import UserError
from flows.settings import Settings
from flows.storage import bucket
from flows.storage.protocol import NotThere
from flows.storage.s3 import S3Bucket
from flows.storage.transfer import CHUNK, Broken

VARIABLE = "REMINT_INCOMING"
TABLE = "CREATE TABLE IF NOT EXISTS seen (place TEXT, key BLOB, stamp TEXT, sha256 TEXT, PRIMARY KEY (place, key))"


@dataclass(frozen=True)
class Item:
    """A file that lies there. Its stamp changes whenever its bytes do; the reverse is not promised."""

    name: str  # for people and JSON: bytes that are no Unicode are written as \\x..
    key: str  # what the place calls it
    size: int
    stamp: str


class Unfetched(Exception):
    """Why a file could not be read, in a few words; the next look may find it otherwise."""


class Nothing(UserError):
    """A prefix in S3 under which nothing lies: it is empty, was removed, or is a mistake in the variable."""


def open(settings: Settings) -> FolderIncoming | S3Incoming:
    """The place that REMINT_INCOMING names; one that cannot be listed or read is a UserError."""
    address = settings.incoming
    if not address:
        raise UserError(f"{VARIABLE} names no place to watch: set it to a folder or s3://bucket/prefix")
    if "://" not in address:
        return FolderIncoming(Path(address))
    found = bucket.at(address, VARIABLE)  # its checks of the address
    assert isinstance(found, S3Bucket)
    return S3Incoming(found.bucket, found.prefix.rstrip("/"), variable=VARIABLE)


class FolderIncoming:
    """A folder with everything below it. Names that begin with a dot are files in the making."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, str(root)

    def items(self) -> Iterator[Item]:
        """Everything that lies there, by name."""
        if not self.root.is_dir():
            raise UserError(f"{VARIABLE}={self.root}: there is no such folder; create it, or correct the variable")
        for folder, inner, names in os.walk(self.root, onerror=_unreadable):
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            for name in sorted(names):
                if name.startswith("."):
                    continue
                path = Path(folder, name)
                try:
                    about = path.stat()
                except OSError:  # a link to nothing, or gone meanwhile
                    continue
                key = path.relative_to(self.root).as_posix()
                yield Item(_printable(key), key, about.st_size, stamp(about))

    def fetch(self, item: Item, path: Path) -> None:
        """Bring a file's bytes to `path`; Unfetched if it has gone, changes just now, or is no file."""
        try:  # a pipe would make the reader wait for ever
            file = os.open(self.root / item.key, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Unfetched("has gone") from None
        except OSError as error:
            raise Unfetched(f"cannot be read ({error.strerror}); correct its permissions") from None
        with os.fdopen(file, "rb") as source, path.open("wb") as copy:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise Unfetched("is not a regular file")
            while chunk := source.read(CHUNK):
                copy.write(chunk)
            if stamp(os.fstat(file)) != item.stamp:
                raise Unfetched("changes while it is read")


class S3Incoming(S3Bucket):
    """A prefix in S3: what lies under it, at any depth."""

    def items(self) -> Iterator[Item]:
        """`Nothing` if nothing lies there, not even the empty object that marks a folder."""
        found = False
        with self._explained("list", ""):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix):
                for entry in page.get("Contents", []):
                    found = True
                    key, size = entry["Key"], entry["Size"]
                    if not key.endswith("/"):  # else a folder, as web pages make them
                        yield Item(key.removeprefix(self.prefix), key, size, f"{entry['ETag']} {size}")
        if not found:
            raise Nothing(
                f"{VARIABLE}={self.name}: nothing lies under this prefix any more; correct the variable, or, if it is "
                f"meant to be empty, put an empty object {self.prefix or 'of any name that ends with /'} there"
            )

    def fetch(self, item: Item, path: Path) -> None:
        try:
            with self._explained("read", item.name):
                answer: Any = self._client.get_object(Bucket=self.bucket, Key=item.key)
                with path.open("wb") as copy:
                    for chunk in answer["Body"].iter_chunks(CHUNK):
                        copy.write(chunk)
        except NotThere:
            raise Unfetched("has gone") from None
        except Broken as error:
            raise Unfetched(str(error)) from None


def _unreadable(error: OSError) -> None:
    raise UserError(f"{VARIABLE}: {error.filename} cannot be read ({error.strerror}); correct its permissions")


def stamp(about: os.stat_result) -> str:
    """Nobody can set the time of a file's last change, `ctime`, by hand."""
    return f"{about.st_ino} {about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}"


def _printable(name: str) -> str:
    """A name as valid Unicode, which JSON and parquet need."""
    return name.encode("utf-8", "backslashreplace").decode()


class Memo:
    """What this machine read before, so that a look reads only what changed: digests by place and stamp, in SQLite.

    Whoever loses the file, or has a broken one, reads everything once more and finds by digest that nothing is new.
    """

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
def memo(path: Path, place: str) -> Iterator[Memo]:
    """What was read of one place, noted at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = _connect(path)
    except sqlite3.DatabaseError:
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
        connection = _connect(path)
    with closing(connection):
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
