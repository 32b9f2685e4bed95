"""A CSV with the columns `path` (from where the CSV lies), `label` and, if it likes, `licence`."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from data.core.params import UserError
from data.pictures import folders
from data.pictures.given import Given, Spool, label
from data.pictures.places import File, Place


def named(place: Place, files: Sequence[File], table: str, where: str) -> list[File]:
    """The table and the files that it names; UserError for a row that names none."""
    known = {file.name: file for file in files}
    if table not in known:
        raise UserError(f"{where}: {place.address}/{table} is not there; put it there")
    with tempfile.TemporaryDirectory(prefix="remint-table-") as scratch:
        marked = place.marked(known[table])
        with place.opened(marked, Path(scratch)) as path:
            rows = _rows(path, f"{place.address}/{table}")
    wanted = {table: marked}
    for number, row in rows:
        if row["path"] not in known:
            raise UserError(
                f"{place.address}/{table}:{number}: {row['path']!r} is no file below {place.address}; correct the row"
            )
        wanted[row["path"]] = known[row["path"]]
    return sorted(wanted.values(), key=lambda file: file.name)


def read(files: Sequence[File], place: Place, spool: Spool, scratch: Path, table: str) -> Iterator[Given]:
    """Every row's picture."""
    known = {file.name: file for file in files}
    with place.opened(known[table], scratch) as path:
        rows = _rows(path, f"{place.address}/{table}")
    for _, row in rows:
        for one in folders.read([known[row["path"]]], place, spool, scratch):
            yield replace(one, label=label(row.get("label") or ""), licence=row.get("licence") or "")


def _rows(path: Path, name: str) -> list[tuple[int, dict[str, str]]]:
    """The rows with their lines; UserError where the header does not name a path."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or ()):
                raise UserError(f"{name}:1 must name the columns path and label, not {reader.fieldnames}")
            return [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name} is not a CSV in UTF-8 ({error}); save it as one") from None
