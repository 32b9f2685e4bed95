"""Outputs held against the digests that dvc.lock records: in DVC's cache, and in a workspace.

DVC takes a read-only object of its cache for what its name says. Here an object is read once for each state of its
file (inode, size, time of change: what DVC knows files in a workspace by), and every time where its bytes are about
to be used: by a stage, by the registry, the gates and a bundle (`deep`).
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.core import digests
from data.core.params import UserError
from flows.pipeline.keys import Entry

READ = "remint/read.db"  # in the cache's folder: what was found in which state of which file
OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
THREADS = 4  # files read at once
MEND = "to have it brought or made again: remint doctor --repair, then remint retrain"

State = tuple[int, int, int]  # inode, bytes, nanoseconds


@dataclass(frozen=True)
class Damage:
    """A file that is not what dvc.lock records."""

    file: str  # below the repository, "" where nobody knows what the object is of
    path: Path  # where it lies
    expected: str  # md5
    found: str  # "" if it is not there

    def __str__(self) -> str:
        where = f"{self.file} ({self.path})" if self.file else str(self.path)
        if not self.found:
            return f"{where} is not there: expected md5 {self.expected}"
        return f"{where} is damaged: expected md5 {self.expected}, found {self.found}"


class Objects:
    """The objects of a DVC cache, by their names."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def path(self, oid: str) -> Path:
        return self.cache / "files" / "md5" / oid[:2] / oid[2:]

    def every(self) -> list[str]:
        """The names of all that is there."""
        paths = sorted((self.cache / "files" / "md5").glob("??/*"))
        names = [path.parent.name + path.name for path in paths]
        return [name for name in names if OBJECT.fullmatch(name)]

    def contents(self, oids: Iterable[str], deep: bool = False, unread: bool = True) -> dict[str, str]:
        """The MD5 of what lies under each of these names; what is not there is left out.

        deep: all is read now, else only lists, which are to be parsed, and what changed since it was last read or,
        if `unread`, never was.
        """

        def now(oid: str) -> bool:
            return deep or oid.endswith(".dir")

        wanted = sorted(set(oids))
        states = {oid: state for oid in wanted if (state := _state(self.path(oid)))}
        with self._notes() as notes:
            known = dict(_known(notes, states))
            found = {oid: md5 for oid, (state, md5) in known.items() if state == states[oid] and not now(oid)}
            todo = [oid for oid in states if oid not in found and (now(oid) or unread or oid in known)]
            with ThreadPoolExecutor(THREADS) as readers:
                read = dict(zip(todo, readers.map(lambda oid: _md5(self.path(oid)), todo), strict=True))
            rows = [(oid, *states[oid], md5) for oid, md5 in read.items() if md5]
            if rows:
                notes.executemany("INSERT OR REPLACE INTO read VALUES (?, ?, ?, ?, ?)", rows)
                notes.commit()
        return {oid: md5 for oid, md5 in {**found, **read}.items() if md5}

    def damaged(self, outs: Mapping[str, str], deep: bool = False) -> list[Damage]:
        """The files of outputs (paths with their objects) that lie in the cache with other bytes."""
        lists = {f"{out}/": oid for out, oid in outs.items() if oid.endswith(".dir")}
        wrong = self._wrong(lists, deep)
        bad = {one.expected for one in wrong}
        files = {out: oid for out, oid in outs.items() if not oid.endswith(".dir")}
        for out, oid in lists.items():
            if oid.removesuffix(".dir") not in bad:
                files |= {f"{out}{name}": md5 for name, md5 in self.members(oid).items()}
        return [*wrong, *self._wrong(files, deep)]

    def members(self, oid: str) -> dict[str, str]:
        """The objects of a folder's files by their names in it; {} where its list is not there."""
        if not oid.endswith(".dir"):
            return {}
        try:
            return {entry["relpath"]: entry["md5"] for entry in json.loads(self.path(oid).read_bytes())}
        except FileNotFoundError:  # evicted at this moment
            return {}

    def remove(self, damage: Damage) -> None:
        """Take a damaged object out of the cache, so that nothing is made of it."""
        damage.path.unlink(missing_ok=True)

    def _wrong(self, files: Mapping[str, str], deep: bool) -> list[Damage]:
        found = self.contents(files.values(), deep)
        return [
            Damage(file, self.path(oid), oid.removesuffix(".dir"), found[oid])
            for file, oid in files.items()
            if found.get(oid, oid.removesuffix(".dir")) != oid.removesuffix(".dir")
        ]

    @contextlib.contextmanager
    def _notes(self) -> Iterator[sqlite3.Connection]:
        path = self.cache / READ
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(_opened(path)) as notes:
            yield notes


def check(root: Path, lock: Mapping[str, Entry], objects: Objects, wanted: Callable[[str], bool]) -> None:
    """UserError for the first wanted file of a workspace that is not what its dvc.lock records, or is not there."""
    for damage in different(root, lock, objects, wanted):
        of_cache = objects.damaged({damage.file: damage.expected}, deep=True)  # noted: the next plan says so too
        raise UserError(f"{next(iter(of_cache), damage)}; {MEND}")


def different(
    root: Path, lock: Mapping[str, Entry], objects: Objects, wanted: Callable[[str], bool]
) -> Iterator[Damage]:
    """The wanted files of a workspace that are not what its dvc.lock records, or are not there; every byte is read."""
    files: dict[str, str] = {}
    for entry in lock.values():
        for out in entry.get("outs", []):
            files |= {path: md5 for path, md5 in _files(objects, out).items() if wanted(path)}
    with ThreadPoolExecutor(THREADS) as readers:
        found = readers.map(lambda path: _md5(root / path), files)
        for (path, expected), md5 in zip(files.items(), found, strict=True):
            if md5 != expected:
                yield Damage(path, root / path, expected, md5)


def _files(objects: Objects, out: Mapping[str, Any]) -> dict[str, str]:
    """The files of an output with their digests; of a folder whose list is damaged or gone the list itself."""
    path, oid = str(out["path"]), str(out["md5"])
    if not oid.endswith(".dir"):
        return {path: oid}
    if objects.contents([oid], deep=True).get(oid) != oid.removesuffix(".dir"):
        return {f"{path}/": oid.removesuffix(".dir")}
    return {f"{path}/{name}": md5 for name, md5 in objects.members(oid).items()}


def _state(path: Path) -> State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _md5(path: Path) -> str:
    """The MD5 of a file, "" if there is none."""
    try:
        return digests.md5(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return ""


def _known(notes: sqlite3.Connection, wanted: Iterable[str]) -> Iterator[tuple[str, tuple[State, str]]]:
    for oid in wanted:
        row = notes.execute("SELECT inode, size, changed, md5 FROM read WHERE oid = ?", (oid,)).fetchone()
        if row:
            yield oid, ((row[0], row[1], row[2]), row[3])


def _opened(path: Path) -> sqlite3.Connection:
    """The notes; what is no database is begun again: everything is then read once more."""
    table = "CREATE TABLE IF NOT EXISTS read (oid TEXT PRIMARY KEY, inode INT, size INT, changed INT, md5 TEXT)"
    for last in (False, True):
        notes = sqlite3.connect(path, timeout=60)
        try:
            notes.execute(table)
            return notes
        except sqlite3.DatabaseError:
            notes.close()
            if last:
                raise
            path.unlink(missing_ok=True)
    raise AssertionError
