"""Arrival lists: which photographs there are, by digest, in the order in which they arrived.

    {"pool": "s3://bucket/prefix"}
    {"sha256": "64 hex digits", "bytes": 123, "name": "IMG 1.jpg", "licence": "...", "author": "", "title": "", ...}

A list is a small file `*.arrivals` of JSON lines, and fixes every byte of what it stands for: the pool (a folder, also
relative to the list, or S3) holds each photograph once, as `ab/abcd...` under its SHA-256. Names are text for people,
never paths. Lines are only ever added at the end, so what was made of the earlier ones stays as it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.core import digests, params, stores
from data.core.entry import Unavailable
from data.core.params import UserError

SUFFIX = ".arrivals"


@dataclass(frozen=True)
class Arrival:
    """A photograph, and what is known about its rights."""

    sha256: str
    bytes: int
    name: str
    licence: str = ""
    author: str = ""
    title: str = ""
    url: str = ""

    @property
    def place(self) -> str:
        """Where it lies in the pool."""
        return f"{self.sha256[:2]}/{self.sha256}"


@dataclass(frozen=True)
class Arrivals:
    """A pool and what of it counts, in order."""

    pool: str
    photographs: tuple[Arrival, ...]


def text(arrivals: Arrivals) -> str:
    """The list as it is written."""
    lines = [{"pool": arrivals.pool}, *(asdict(one) for one in arrivals.photographs)]
    return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def read(path: Path) -> Arrivals:
    """The list in a file; UserError names the line that is wrong. A relative pool is meant from where the list lies."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); it must be a list of arrivals") from None
    if lines.pop() != "":
        raise UserError(f"{path} is cut off: its last line has no end; write it again")
    pool = _line(path, 1, lines[0] if lines else "").get("pool")
    if not isinstance(pool, str) or not pool:
        raise UserError(f'{path}:1 must be {{"pool": "where the photographs lie"}}')
    found: dict[str, Arrival] = {}
    for number, line in enumerate(lines[1:], start=2):
        one = params.build(Arrival, _line(path, number, line), where=f"{path}:{number}")
        if not re.fullmatch("[0-9a-f]{64}", one.sha256) or one.sha256 in found:
            raise UserError(f"{path}:{number}: sha256 must be 64 hex digits, once in the list, not {one.sha256!r}")
        found[one.sha256] = one
    return Arrivals(pool if "://" in pool else str(path.parent / pool), tuple(found.values()))


def bring(store: stores.Store, one: Arrival, scratch: Path) -> Path:
    """A photograph's file, its digest verified; it may lie in `scratch`. UserError when the pool does not have it."""
    try:
        file = store.get(one.place, scratch)
        found = digests.sha256(file)
    except (Unavailable, FileNotFoundError):
        if store.has(one.place):
            raise
        raise UserError(
            f"{store.address} lacks {one.place} ({one.name!r}), which the list says has arrived; put it back"
        ) from None
    if found != one.sha256:
        raise UserError(f"{store.address}/{one.place} ({one.name!r}) has other bytes, of SHA-256 {found}; put it back")
    return file


def _line(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path}:{number} is not a JSON object in which each name stands once")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any] | None:
    values = dict(pairs)
    return values if len(values) == len(pairs) else None
