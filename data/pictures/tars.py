"""Tars as WebDataset has them: members of one key are a sample, `KEY.jpg` with its label in `KEY.cls` or `KEY.json`.

A label is an index into `classes.txt` (a name per line, beside the tars) or the name of a class. Members are read
and never extracted by their names.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data.core.params import UserError
from data.pictures.given import Given, Spool, label, printable
from data.pictures.places import File, Place

PICTURES = ("jpg", "jpeg", "png", "webp")
LABELS = ("label", "cls", "class", "class_name")  # names in a json, the first that is there
LICENCES = ("licence", "license")
CLASSES = "classes.txt"
LONGEST = 1 << 20  # bytes of a label


def classes(files: Sequence[File], place: Place, scratch: Path) -> tuple[str, ...] | None:
    """The names in classes.txt, None without one."""
    for file in files:
        if file.name == CLASSES:
            with place.opened(file, scratch) as path:
                return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return None


def read(files: Sequence[File], place: Place, spool: Spool, scratch: Path) -> Iterator[Given]:
    """Every picture of the tars, in their order."""
    for file in files:
        if file.name == CLASSES:
            continue
        with place.opened(file, scratch) as path:
            try:
                with tarfile.open(path, "r:") as archive:
                    yield from _samples(archive, printable(file.name), spool)
            except tarfile.TarError as error:
                raise UserError(
                    f"{place.address}/{file.name} is not a whole tar archive ({error}); put it there again"
                ) from None


def _samples(archive: tarfile.TarFile, tar: str, spool: Spool) -> Iterator[Given]:
    """The samples of an archive; members of one key need not lie next to each other."""
    pictures: dict[str, list[tuple[str, Path]]] = {}
    about: dict[str, dict[str, Any]] = {}
    for member in archive:
        name = printable(member.name)
        key, _, suffix = _split(name)
        if member.isdir():
            continue
        if not member.isreg() or name.startswith("/") or ".." in Path(name).parts:
            why = "leaves its folder" if member.isreg() else "is a link or a device"
            yield Given(f"{tar}/{name}", reason=f"{why}, and is not read")
        elif suffix in PICTURES:
            data = archive.extractfile(member).read()  # type: ignore[union-attr]
            pictures.setdefault(key, []).append(spool.keep(data))
        elif suffix in ("cls", "json") and member.size <= LONGEST:
            text = archive.extractfile(member).read()  # type: ignore[union-attr]
            about[key] = about.get(key, {}) | (_json(text) if suffix == "json" else {"label": _text(text)})
    for key, found in pictures.items():
        said = about.get(key, {})
        if len(found) > 1:
            yield Given(f"{tar}/{key}", reason=f"has {len(found)} pictures under one key")
            continue
        if "reason" in said:
            yield Given(f"{tar}/{key}", reason=said["reason"])
            continue
        sha256, path = found[0]
        yield Given(f"{tar}/{key}", path, sha256, said.get("label"), said.get("licence", ""))


def _split(name: str) -> tuple[str, str, str]:
    """Key, dot and suffix of a member: the key ends at the first dot of the file's name."""
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.partition(".")
    return f"{folder}{slash}{stem}", dot, suffix.lower()


def _text(data: bytes) -> int | str | None:
    return label(data.decode("utf-8", "replace"))


def _json(data: bytes) -> dict[str, Any]:
    """Label and licence of a json member, where it says them."""
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return {"reason": "has a json that cannot be read"}
    if not isinstance(values, dict):
        return {}
    found = {}
    for name, known in (("label", LABELS), ("licence", LICENCES)):
        value = next((values[one] for one in known if values.get(one) is not None), None)
        if value is not None:
            found[name] = label(str(value)) if name == "label" else str(value)
    return found
