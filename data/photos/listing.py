"""Lists of a folder's files by digest, which fix what is read of the folder before anything is.

    {"folder": "/home/ann/pictures"}
    {"name": "2026/IMG 1.jpg", "sha256": "64 hex digits"}
    {"name": "a pipe", "reason": "is not a regular file"}

A list is a small file `*.listing` of JSON lines. A relative folder is meant from where the list lies. Whatever a person
keeps in a folder can be listed: names that are no Unicode, pipes, links to nothing, files that nobody may read.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.core import digests
from data.core.params import UserError

SUFFIX = ".listing"
LINKED = "is a link to a folder, which is not followed"


def of(folder: Path, digest: Callable[[Path], str] = digests.sha256) -> dict[str, dict[str, str]]:
    """By name in the folder either {"sha256": ...} or {"reason": ...}, why the file cannot be read; sorted by name."""
    found = {path.relative_to(folder).as_posix(): path for path in files(folder)}
    return {name: _entry(found[name], digest) for name in sorted(found, key=os.fsencode)}


def text(folder: str, entries: dict[str, dict[str, str]]) -> str:
    """The list as it is written: in ASCII, so that a name without meaning in Unicode comes back as it was."""
    lines = [{"folder": folder}, *({"name": name} | entry for name, entry in entries.items())]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def read(path: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """Folder and entries of a list; UserError names the line that is wrong, or says that the folder is not here."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
        folder = path.parent / lines[0]["folder"]
        entries = {line["name"]: {k: v for k, v in line.items() if k != "name"} for line in lines[1:]}
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}); it must list a folder's files: run again") from None
    for name, entry in entries.items():
        inside = not name.startswith("/") and ".." not in Path(name).parts
        if not inside or entry.keys() not in ({"sha256"}, {"reason"}) or not all(map(_is_text, entry.values())):
            raise UserError(f"{path}: {name!r} must have a place in the folder and either sha256 or reason")
    if not folder.is_dir():
        raise UserError(
            f"photos.source: {folder}, whose photographs {path} lists, is not on this machine; put it there"
        )
    return folder, entries


def files(folder: Path) -> list[Path]:
    """Everything below a folder that is no folder, and links to folders; UserError where one cannot be listed."""

    def unreadable(error: OSError) -> None:
        raise UserError(f"photos.source: {error.filename} cannot be read ({error.strerror}); change its permissions")

    found = []
    for here, inner, names in os.walk(folder, onerror=unreadable):
        found += [Path(here) / name for name in names]
        found += [path for path in (Path(here) / name for name in inner) if path.is_symlink()]
    return found


def is_folder(path: Path) -> bool:
    """Whether something below a folder is a link to another; `Path.is_dir` raises where nobody may look."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def _entry(path: Path, digest: Callable[[Path], str]) -> dict[str, str]:
    if is_folder(path):
        return {"reason": LINKED}
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return {"reason": "is not a regular file"}  # opening a pipe would wait for ever
        return {"sha256": digest(path)}
    except OSError as error:
        return {"reason": f"cannot be opened: {error.strerror}"}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
