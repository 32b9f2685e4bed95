"""Where given pictures lie: a folder, or a bucket on S3. Nothing is ever written there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from data.core import digests, stores
from data.core.params import UserError


@dataclass(frozen=True)
class File:
    """A file of a place; `mark` changes with its bytes: its SHA-256, or the ETag that S3 gives it."""

    name: str
    bytes: int
    mark: str = ""
    reason: str = ""  # why it cannot be read


class Place(Protocol):
    """Files by name."""

    address: str

    def files(self) -> list[File]:
        """Every file, sorted by name; a folder's have no marks yet."""

    def marked(self, file: File) -> File:
        """The file with its mark."""

    def here(self, file: File) -> Path | None:
        """The file's path, if it has one on this machine."""

    def opened(self, file: File, scratch: Path) -> AbstractContextManager[Path]:
        """Context: a path to read the file from; UserError if it is not as it was marked."""


def open(source: str, where: str) -> tuple[Place, str]:
    """The place of a source and, if it is a single file, the file's name there; UserError when nothing is there.

    where: the parameter that names the source.
    """
    if source.startswith("s3://"):
        above, _, last = source.rstrip("/").rpartition("/")
        single = last.endswith((".csv", ".tar", ".parquet"))
        return Bucket(above if single else source, where), last if single else ""
    path = Path(source)
    if path.is_dir():
        return Folder(path, where), ""
    if path.is_file():
        return Folder(path.parent, where), path.name
    raise UserError(f"{where}: {source} is not on this machine; put it there, or name where it is by remint data add")


class Folder:
    """A folder, searched recursively; names that begin with a dot are not looked at."""

    def __init__(self, path: Path, where: str) -> None:
        self.path, self.where, self.address = path, where, str(path)

    def files(self) -> list[File]:
        found = []
        for place, folders, names in os.walk(self.path, onerror=self._unreadable):
            inner = [name for name in folders if not name.startswith(".")]
            folders[:] = [name for name in inner if not (Path(place) / name).is_symlink()]
            linked = [name for name in inner if name not in folders]
            found += [self._file(Path(place) / name) for name in [*linked, *names] if not name.startswith(".")]
        return sorted(found, key=lambda file: os.fsencode(file.name))

    def marked(self, file: File) -> File:
        try:
            return File(file.name, file.bytes, digests.sha256(self.path / file.name))
        except OSError as error:
            return File(file.name, file.bytes, reason=f"cannot be opened: {error.strerror}")

    def here(self, file: File) -> Path:
        return self.path / file.name

    @contextmanager
    def opened(self, file: File, scratch: Path) -> Iterator[Path]:
        if self.marked(file).mark != file.mark:
            raise UserError(f"{self.where}: {self.path / file.name} {CHANGED}")
        yield self.path / file.name

    def _file(self, path: Path) -> File:
        name = path.relative_to(self.path).as_posix()
        try:
            about = path.stat()
        except OSError as error:
            return File(name, 0, reason=f"cannot be opened: {error.strerror}")
        if stat.S_ISDIR(about.st_mode):
            return File(name, 0, reason="is a link to a folder, which is not followed")
        if not stat.S_ISREG(about.st_mode):
            return File(name, 0, reason="is not a regular file")  # opening a pipe would wait for ever
        return File(name, about.st_size)

    def _unreadable(self, error: OSError) -> None:
        raise UserError(f"{self.where}: {error.filename} cannot be read ({error.strerror}); change its permissions")


class Bucket:
    """A prefix in a bucket on S3; keys and endpoint come from the environment."""

    def __init__(self, address: str, where: str) -> None:
        store = stores.open(address, where)
        assert isinstance(store, stores.Bucket)
        self.store, self.where, self.address = store, where, address

    def files(self) -> list[File]:
        prefix = self.store.prefix
        with stores._as_os_errors(self.address):
            pages = self.store.client.get_paginator("list_objects_v2").paginate(Bucket=self.store.bucket, Prefix=prefix)
            rows = [row for page in pages for row in page.get("Contents", ())]
        found = [File(row["Key"][len(prefix) :], row["Size"], row["ETag"].strip('"')) for row in rows]
        shown = [file for file in found if not any(part.startswith(".") for part in Path(file.name).parts)]
        return sorted((f for f in shown if f.name and not f.name.endswith("/")), key=lambda file: file.name.encode())

    def marked(self, file: File) -> File:
        return file

    def here(self, file: File) -> None:
        return None

    @contextmanager
    def opened(self, file: File, scratch: Path) -> Iterator[Path]:
        path = scratch / "brought"
        with stores._as_os_errors(f"{self.address}/{file.name}"):
            answer = self.store.client.get_object(Bucket=self.store.bucket, Key=self.store.prefix + file.name)
            if answer["ETag"].strip('"') != file.mark:
                raise UserError(f"{self.where}: {self.address}/{file.name} {CHANGED}")
            with path.open("wb") as copy:
                for chunk in answer["Body"].iter_chunks(1 << 20):
                    copy.write(chunk)
        try:
            yield path
        finally:
            path.unlink()


CHANGED = "is not as it was listed; put it back, or list the set again with remint data add"
