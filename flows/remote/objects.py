"""DVC's remote as objects by their MD5: a folder or S3, every transfer verified, broken downloads resumed.

    files/md5/ab/cdef...        a file of that MD5
    files/md5/ab/cdef....dir    the list of an output folder's files

That is DVC's own layout: `dvc pull` and `dvc push` with the same remote find and leave the same objects.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from data.core.params import UserError
from flows.settings import Settings
from flows.storage import bucket, transfer
from flows.storage.folder import FolderBucket
from flows.storage.protocol import NotThere, Watch
from flows.storage.s3 import S3Bucket, _body, _extent, _md5
from flows.storage.transfer import CHUNK, WrongContent

OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
ALGORITHM = "md5"


class Objects(Protocol):
    """What both kinds of remote do. UserError where the remote does not do its part; it names the object."""

    name: str

    # `watch` is told of every byte that moves, and may raise to stop it.

    def size(self, oid: str) -> int | None:
        """Bytes of an object, None if it is not there."""

    def keeps(self, oid: str, file: os.stat_result) -> bool:
        """Whether an object is there in full, beside this file of it, which may then be removed."""

    def get(self, oid: str, path: Path, watch: Watch) -> None:
        """Bring an object to `path`, verified; NotThere. A broken download is kept as `<path>.partial`."""

    def put(self, oid: str, path: Path, watch: Watch) -> None:
        """Store a file, verified by size and digest; UserError if it is not what its name says."""


def open(settings: Settings) -> Objects:
    """Where runs and workers exchange outputs: REMINT_REMOTE."""
    address = settings.remote
    if "://" not in address:
        return FolderObjects(settings.root / Path(address).expanduser(), "REMINT_REMOTE")
    found = bucket.at(address, "REMINT_REMOTE")
    assert isinstance(found, S3Bucket)
    return S3Objects(found.bucket, found.prefix.rstrip("/"), variable=found.variable)


def key(oid: str) -> str:
    """Where DVC keeps an object; UserError for what is no digest of DVC's, as a name that leads elsewhere."""
    if not OID.fullmatch(oid):
        raise UserError(f"'{oid[:80]}' is not an MD5 digest as DVC writes it")
    return f"files/md5/{oid[:2]}/{oid[2:]}"


class FolderObjects(FolderBucket):
    """DVC's remote in a folder."""

    def size(self, oid: str) -> int | None:
        with self._explained("look for", key(oid)):
            try:
                return self._path(key(oid)).stat().st_size
            except FileNotFoundError:
                return None

    def keeps(self, oid: str, file: os.stat_result) -> bool:
        with self._explained("look for", key(oid)):
            try:
                there = self._path(key(oid)).stat()
            except FileNotFoundError:
                return False
        return there.st_size == file.st_size and not os.path.samestat(there, file)  # a remote that is the cache itself

    def get(self, oid: str, path: Path, watch: Watch) -> None:
        source, name = self._path(key(oid)), key(oid)

        def chunks(offset: int) -> Iterator[bytes]:
            with self._explained("download", name):
                yield from _read(source, offset, watch)

        with self._explained("download", name):
            size = source.stat().st_size
        transfer.receive(chunks, path, size, oid[:32], f"{self.name}/{name}", algorithm=ALGORITHM)

    def put(self, oid: str, path: Path, watch: Watch) -> None:
        target, size = self._path(key(oid)), path.stat().st_size
        fresh = target.parent / f".{target.name}.{uuid.uuid4().hex}"

        with self._explained("upload", key(oid)):
            try:
                read = functools.partial(_read, path, watch=watch)
                transfer.receive(read, fresh, size, oid[:32], str(path), algorithm=ALGORITHM)
                fresh.chmod(0o444)
                fresh.replace(target)
            finally:
                for left in (fresh, fresh.with_name(f"{fresh.name}.partial")):
                    left.unlink(missing_ok=True)


class S3Objects(S3Bucket):
    """DVC's remote in S3: the server compares each body with the MD5 it is sent with, and refuses another."""

    def size(self, oid: str) -> int | None:
        with self._explained("look for", key(oid)):
            there = self._head(key(oid))
        return None if there is None else int(there["ContentLength"])

    def keeps(self, oid: str, file: os.stat_result) -> bool:
        return self.size(oid) == file.st_size

    def get(self, oid: str, path: Path, watch: Watch) -> None:
        name = key(oid)
        size = self.size(oid)
        if size is None:
            raise NotThere(f"{self.name} holds no {name}")

        def chunks(offset: int) -> Iterator[bytes]:
            if offset >= size:
                return
            with self._explained("download", name):
                place = {"Bucket": self.bucket, "Key": self._key(name)}
                answer = self._client.get_object(**place, **({"Range": f"bytes={offset}-"} if offset else {}))
                begins, _ = _extent(answer)
                for chunk in _body(answer):
                    fresh = chunk[max(0, offset - begins) :]  # a server may ignore the range
                    begins += len(chunk)
                    if fresh:
                        watch(len(fresh))
                        yield fresh

        transfer.receive(chunks, path, size, oid[:32], f"{self.name}/{name}", algorithm=ALGORITHM)

    def put(self, oid: str, path: Path, watch: Watch) -> None:
        name, size = key(oid), path.stat().st_size
        place = {"Bucket": self.bucket, "Key": self._key(name)}
        found = _digest(path)
        if found != oid[:32]:
            raise WrongContent(f"{path} is damaged: expected {ALGORITHM} {oid[:32]}, found {found}; remove it")
        with self._explained("upload", name):
            if size <= self.part_bytes:
                data = path.read_bytes()
                self._client.put_object(**place, Body=data, ContentMD5=_md5(data))
                watch(size)
            else:
                self._put_large(place, path, watch)
            there = self._head(name)
        if there is None or there["ContentLength"] != size:
            kept = "nothing" if there is None else f"{there['ContentLength']} bytes"
            raise UserError(f"{self.name} does not keep what is written to it ({name}): {size} bytes, found {kept}")

    def _put_large(self, place: Mapping[str, str], path: Path, watch: Watch) -> None:
        started = self._client.create_multipart_upload(**place)
        upload = {**place, "UploadId": started["UploadId"]}
        try:
            parts: list[Mapping[str, Any]] = []
            with path.open("rb") as file:
                while data := file.read(self.part_bytes):
                    number = len(parts) + 1
                    made = self._client.upload_part(**upload, PartNumber=number, Body=data, ContentMD5=_md5(data))
                    parts.append({"PartNumber": number, "ETag": made["ETag"]})
                    watch(len(data))
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            self._abort(upload)
            raise


def _read(path: Path, offset: int, watch: Watch) -> Iterator[bytes]:
    """The bytes of a file from an offset on."""
    with path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(CHUNK):
            watch(len(chunk))
            yield chunk


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
