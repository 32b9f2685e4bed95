"""Where photographs come from: a YAML list with licences, or a folder of the user's own, listed or not."""

from __future__ import annotations

import dataclasses
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.core import params
from data.core.params import UserError
from data.photos import listing

LISTS = (".yaml", ".yml")
KINDS = (*LISTS, listing.SUFFIX, ".arrivals")
OWN = "not stated; the photographs are the user's own"


@dataclass(frozen=True)
class Photo:
    """A file and what is known about its rights. `name` is valid Unicode and independent of the machine."""

    path: Path
    name: str
    title: str = ""
    author: str = ""
    licence: str = OWN
    url: str = ""
    sha256: str = ""  # of a listed file: it must have these bytes
    reason: str = ""  # why it cannot be used, where that is known already


@dataclass(frozen=True)
class Listed:
    """One entry of a YAML list: `file` in an installed `package`, or relative to the list."""

    title: str
    file: str
    author: str
    licence: str
    url: str = ""
    package: str | None = None


def find(source: str | Path) -> list[Photo]:
    """All files of the source, sorted by name; whether they can be used is found out later.

    Raises UserError when the source is missing, of another kind, unreadable or empty.
    """
    source = located(source)
    if source.is_dir():
        photos = _in_folder(source)
    elif source.suffix == listing.SUFFIX:
        photos = _in_listing(source)
    else:
        photos = _in_list(source)
    if not photos:
        raise UserError(f"photos.source: {source} holds no files; put JPEG, PNG, WebP or TIFF photographs there")
    return sorted(photos, key=lambda photo: (photo.name, photo.path))


def located(source: str | Path, root: Path = Path()) -> Path:
    """Where a source lies, seen from `root`; UserError when it is not there or of no kind that is known."""
    path = root / source
    if not str(source).strip():
        raise UserError("photos.source is empty; name a folder of photographs or a YAML list")
    if (whole := Path(source).expanduser()) != Path(source):  # DVC would look for a folder of this name
        raise UserError(f"photos.source: {source} is not understood by DVC; write the whole path: {whole}")
    if not path.exists():
        raise UserError(f"photos.source: {source} does not exist; name a folder by its whole path, or a list in git")
    if not path.is_dir() and not (path.is_file() and path.suffix.lower() in KINDS):
        raise UserError(f"photos.source: {source} is neither a folder of photographs nor a YAML list of them")
    return path


def attribution(photos: list[Photo]) -> str:
    """Markdown that names title, author and licence of each photograph."""
    lines = ["# Photographs in this folder", "", "Cut into square tiles and resampled; otherwise unchanged.", ""]
    for photo in photos:
        said = [photo.title and f"“{photo.title}”", photo.author and f"by {photo.author}", photo.licence]
        known = ", ".join(part for part in said if part)
        lines.append(f"- `{_one_line(photo.name)}`: {known}{f', <{photo.url}>' if photo.url else ''}")
    return "\n".join(lines) + "\n"


def _in_folder(folder: Path) -> list[Photo]:
    return [
        Photo(
            path,
            _printable(path.relative_to(folder).as_posix()),
            reason=listing.LINKED if listing.is_folder(path) else "",
        )
        for path in listing.files(folder)
    ]


def _in_listing(path: Path) -> list[Photo]:
    folder, entries = listing.read(path)
    return [Photo(folder / name, _printable(name), **entry) for name, entry in entries.items()]


def _in_list(path: Path) -> list[Photo]:
    entries: Any = params.read(path).get("photos")
    if not isinstance(entries, list):
        raise UserError(f"{path} must hold a list named 'photos'")
    photos = []
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise UserError(f"{path}: photos[{i}] must be a section of key: value lines, not {entry!r}")
        listed = params.build(Listed, entry, where=f"{path}: photos[{i}]")
        base = package_folder(listed.package) if listed.package else path.parent
        about = {f.name: getattr(listed, f.name) for f in dataclasses.fields(Photo) if hasattr(listed, f.name)}
        name = f"{listed.package}/{listed.file}" if listed.package else listed.file
        photos.append(Photo(path=base / listed.file, name=name, **about))
    return photos


def package_folder(package: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the Python package {package}, which carries photographs, is not installed; run make setup")
    return Path(spec.submodule_search_locations[0])


def _printable(name: str) -> str:
    """File names may hold bytes that are no Unicode; parquet and JSON cannot."""
    return name.encode("utf-8", "backslashreplace").decode()


def _one_line(name: str) -> str:
    return name.encode("unicode_escape").decode() if not name.isprintable() else name.replace("`", "'")
