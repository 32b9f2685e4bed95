"""The list of a set's files, which git tracks: what it says is read, and nothing else.

    {"kind": "folders"}
    {"name": "cat/1.jpg", "bytes": 120334, "mark": "64 hex digits"}
    {"name": "a pipe", "bytes": 0, "reason": "is not a regular file"}

`remint data add` writes `data/sets/NAME.listing`; the stage depends on it and refuses a source that has become another.
So DVC need not know where pictures lie, a run's commit fixes them by digest, and nothing is hashed before each run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.core import params
from data.core.params import UserError
from data.pictures import folders, tables, tars
from data.pictures.params import named
from data.pictures.places import File, Place

FOLDER = Path("data/sets")
ASIDE = (".txt", ".json", ".md", ".yaml", ".yml")  # what lies beside tars and parquets and says something of them
KINDS = ("folders", "tars", "parquet", "csv")


@dataclass(frozen=True)
class Listing:
    """The form that a set is given in, and its files sorted by name."""

    kind: str
    files: tuple[File, ...]


def path(name: str) -> Path:
    """Where the list of a set lies in a checkout."""
    return FOLDER / f"{named(name)}.listing"


def of(place: Place, single: str, where: str) -> Listing:
    """The list of what lies at a place now, every file read once; UserError for what is no set of pictures."""
    kind, files = _found(place, single, where)
    if kind == "folders":
        folders.check(files, where)
    return Listing(kind, tuple(file if file.reason else place.marked(file) for file in files))


def text(listed: Listing) -> str:
    """The list as it is written: in ASCII, so that a name without meaning in Unicode comes back as it was."""
    lines: list[dict[str, Any]] = [{"kind": listed.kind}]
    for file in listed.files:
        about = {"reason": file.reason} if file.reason else {"mark": file.mark}
        lines.append({"name": file.name, "bytes": file.bytes} | about)
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def read(file: Path) -> Listing:
    """The list in a file; UserError names the line that is wrong."""
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        raise UserError(
            f"{file} does not exist; write it with remint data add {file.stem} SOURCE, and commit it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read ({error}); write it again with remint data add") from None
    kind = _line(file, 1, lines[0] if lines else "").get("kind")
    if kind not in KINDS:
        raise UserError(f"{file}:1 must say a kind ({', '.join(KINDS)}), not {kind!r}; run remint data add again")
    found = []
    for number, line in enumerate(lines[1:], start=2):
        one = params.build(File, _line(file, number, line), where=f"{file}:{number}")
        if one.name.startswith("/") or ".." in Path(one.name).parts or bool(one.mark) == bool(one.reason):
            raise UserError(
                f"{file}:{number}: {one.name!r} must have a place in the set and either mark or reason; "
                "run remint data add again"
            )
        found.append(one)
    return Listing(kind, tuple(found))


def compare(listed: Listing, place: Place, single: str, name: str, where: str) -> None:
    """UserError where the source has other files than the list, by name, size and, on S3, mark.

    The bytes of a folder's files are compared as they are read.
    """
    _, now = _found(place, single, where)
    then, there = {file.name: file for file in listed.files}, {file.name: file for file in now}
    new = [one for one in there if one not in then]
    gone = [one for one in then if one not in there]
    other = [one for one in then if one in there and _differ(then[one], there[one])]
    said = [
        f"{len(names)} {words} (first {names[0]!r})"
        for words, names in (("new", new), ("gone", gone), ("of another size or digest", other))
        if names
    ]
    if said:
        raise UserError(
            f"{where}: {place.address} is not as {path(name)} lists it: {', '.join(said)}; put it back, or run "
            f"remint data add {name} again and commit what it writes"
        )


def _found(place: Place, single: str, where: str) -> tuple[str, list[File]]:
    files = place.files()
    if single.endswith(".csv"):
        return "csv", tables.named(place, files, single, where)
    if single:
        files = [file for file in files if file.name == single]
    said = [file for file in files if file.reason or not file.name.lower().endswith(ASIDE)]
    suffixes = {Path(file.name).suffix.lower() for file in said}
    if not said:
        raise UserError(f"{where}: {place.address} holds no files; put pictures, tars or parquet files there")
    packed = suffixes & {".tar", ".parquet"}
    if not packed and not single:
        return "folders", files
    if len(suffixes) > 1 or not packed:
        raise UserError(
            f"{where}: {place.address} holds {', '.join(sorted(suffixes))} beside each other; name a folder of "
            "pictures, of tars or of parquet files"
        )
    names = [file for file in files if file.name == tars.CLASSES]
    return ("tars" if packed == {".tar"} else "parquet"), sorted([*said, *names], key=lambda file: file.name)


def _differ(then: File, now: File) -> bool:
    return then.bytes != now.bytes or then.reason != now.reason or bool(now.mark and now.mark != then.mark)


def _line(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{file}:{number} is not a JSON object; run remint data add again")
    return values


def bytes_of(files: Iterable[File]) -> int:
    return sum(file.bytes for file in files)
