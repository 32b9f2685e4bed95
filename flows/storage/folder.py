"""A bucket in a folder: an object is a file that is linked to its name once it is whole and on the disk."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from data.core import digests
from data.core.files import sync, write
from data.core.params import UserError
from flows.storage.protocol import SMALL, NotThere, Taken, Watch, check_key
from flows.storage.transfer import CHUNK, announced, receive


class FolderBucket:
    """A `Bucket` in a folder; the folder is made by the first write."""

    def __init__(self, root: Path, variable: str = "REMINT_PRODUCTION") -> None:
        self.root = root.absolute()
        self.next_step = f"correct its permissions or free space, or name another place with {variable}"
        self.name = str(self.root)

    def read(self, key: str, limit: int = SMALL) -> bytes:
        with self._explained("read", key), self._path(key).open("rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise UserError(f"{self.name}/{key} has more than {limit} bytes, which no such file has; remove it")
        return data

    def create(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with self._explained("create", key), self._beside(target) as fresh:
            fresh.write_bytes(data)
            if not _link(fresh, target):
                raise Taken(f"{self.name}/{key} is there already")

    def replace(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with self._explained("write", key), self._beside(target) as fresh:
            write(fresh, data)
            fresh.replace(target)

    def upload(self, key: str, path: Path, sha256: str = "") -> None:
        target = self._path(key)
        with self._explained("upload", key), self._beside(target) as fresh:
            digest = hashlib.sha256()
            with path.open("rb") as source, fresh.open("wb") as copy:
                while chunk := source.read(CHUNK):
                    copy.write(chunk)
                    digest.update(chunk)
            found = digest.hexdigest()
            if sha256 and found != sha256:
                raise UserError(f"{path} was changed: expected sha256 {sha256}, found {found}; make it again")
            if digests.sha256(fresh) != found:
                raise UserError(f"{self.name} does not keep what is written to it ({key}); {self.next_step}")
            if not _link(fresh, target) and (there := digests.sha256(target)) != found:
                raise UserError(
                    f"{self.name}/{key} holds other bytes: sha256 {there}, not {found}; remint doctor says more"
                )

    def download(self, key: str, path: Path, size: int, sha256: str, watch: Watch | None = None) -> None:
        source = self._path(key)

        def chunks(offset: int) -> Iterator[bytes]:
            with self._explained("download", key), source.open("rb") as file:
                found = os.fstat(file.fileno()).st_size
                if found != size:
                    raise UserError(f"{self.name}/{key} has {found} bytes, {size} were announced; publish it again")
                file.seek(offset)
                while chunk := file.read(CHUNK):
                    yield chunk

        receive(chunks, path, size, sha256, f"{self.name}/{key}", watch)

    def verify(self, key: str, size: int, sha256: str = "") -> None:
        path = self._path(key)
        with self._explained("read", key):
            there = path.stat().st_size
            announced(
                f"{self.name}/{key}", size, there, sha256, digests.sha256(path) if sha256 and there == size else ""
            )

    def list(self, prefix: str) -> list[str]:
        """Walks the one folder that the prefix names, not the whole bucket."""
        folder = prefix.rpartition("/")[0]
        top = self._path(folder) if folder else self.root
        with self._explained("list", prefix):
            files = [
                (Path(place) / name).relative_to(self.root).as_posix()
                for place, _, names in os.walk(top, onerror=_unless_gone)
                for name in names
                if not name.startswith(".")
            ]
        return sorted(key for key in files if key.startswith(prefix))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._explained("delete", key):
            path.unlink(missing_ok=True)
            for folder in path.parents:
                if folder == self.root or not _removed(folder):
                    break

    def _path(self, key: str) -> Path:
        path = self.root / check_key(key)
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise UserError(f"{self.name}/{key} leads out of the folder by a link; remove the link")
        return path

    @contextlib.contextmanager
    def _beside(self, target: Path) -> Iterator[Path]:
        """An empty file in the target's folder for what is not whole yet; while it lies there, the folder stays."""
        fresh = target.parent / f".{target.name}.{uuid.uuid4().hex}"
        for tries_left in reversed(range(100)):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                fresh.touch()
                break
            except FileNotFoundError:  # `delete` removed the empty folder in this moment
                if not tries_left:
                    raise
        try:
            yield fresh
        finally:
            fresh.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self, operation: str, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if Path(str(error.filename)).is_relative_to(self.root):
                raise NotThere(f"{self.name} holds no {key}") from None
            raise
        except OSError as error:
            if not Path(str(error.filename or self.root)).is_relative_to(self.root):
                raise
            raise UserError(f"cannot {operation} {key} in {self.name}: {error.strerror}; {self.next_step}") from None


def _unless_gone(error: OSError) -> None:
    """A folder that is not there, or not any more, holds nothing; one that cannot be read is an error."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _removed(folder: Path) -> bool:
    """Remove a folder; False if it holds something, which somebody may have put there in this moment."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _link(fresh: Path, target: Path) -> bool:
    """Give a finished file its name, durably; False if the name is taken."""
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(fresh, target)
    except FileExistsError:
        if not target.samefile(fresh):  # on NFS the link may be made and the answer lost
            return False
    sync(target.parent)
    return True
