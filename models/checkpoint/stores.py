"""Where checkpoints lie: a folder, or a bucket on S3. Both give and take whole files."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data.params import UserError


@dataclass(frozen=True)
class Stored:
    """A file in a store: its name from the store's root, bytes, and when it was written (seconds since 1970)."""

    name: str
    size: int
    modified: float


class Store(Protocol):
    """Files by name. What goes wrong is an OSError, whatever the store."""

    address: str

    def list(self) -> list[Stored]:
        """Every file, sorted by name."""

    def put(self, file: Path, name: str) -> None:
        """Move a file from the scratch folder here; it appears whole or not at all."""

    def get(self, name: str, scratch: Path) -> Path:
        """A file to read; it may lie in `scratch`."""

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""

    def clear(self) -> None:
        """Remove everything."""

    def scratch(self) -> Any:
        """Context: a folder for files that are being written; what is left in it goes at the end."""


def open(address: str) -> Store:
    """The store at `address`: a folder, or s3://bucket/prefix."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return Folder(Path(address))
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        raise UserError("REMINT_CHECKPOINTS is neither a folder nor s3://bucket/prefix")  # unquoted: it may hold a key
    return Bucket(bucket, prefix.strip("/"))


class Folder:
    """A folder; files that are being written lie beside the others, as dot files."""

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, str(path)

    def list(self) -> list[Stored]:
        found = []
        for file in sorted(self.path.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                about = file.stat()
                found.append(Stored(file.relative_to(self.path).as_posix(), about.st_size, about.st_mtime))
        return found

    def put(self, file: Path, name: str) -> None:
        os.replace(file, self.path / name)  # noqa: PTH105 - atomic, and the folder of a name exists

    def get(self, name: str, scratch: Path) -> Path:
        return self.path / name

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        for file in self.path.iterdir() if self.path.is_dir() else ():
            file.unlink(missing_ok=True)
        if self.path.is_dir():
            self.path.rmdir()

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            yield self.path
        finally:
            for file in self.path.glob(".*"):  # also those of a process that was killed while it wrote
                file.unlink(missing_ok=True)


class Bucket:
    """A prefix in an S3 bucket. Keys and endpoint come from the environment, as boto3 reads it."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, f"{prefix}/" if prefix else ""
        self.address = f"s3://{bucket}/{prefix}"
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise UserError(f"REMINT_CHECKPOINTS={self.address} needs boto3; install it (pip install boto3)") from None
        patience = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 3, "mode": "standard"})
        self.client: Any = boto3.client("s3", config=patience)

    def list(self) -> list[Stored]:
        with _as_os_errors(self.address):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix)
            rows = [row for page in pages for row in page.get("Contents", ())]
        start = len(self.prefix)
        return [Stored(r["Key"][start:], r["Size"], r["LastModified"].timestamp()) for r in rows]

    def put(self, file: Path, name: str) -> None:
        with _as_os_errors(self.address):
            self.client.upload_file(str(file), self.bucket, self.prefix + name)
        file.unlink()

    def get(self, name: str, scratch: Path) -> Path:
        file = scratch / Path(name).name
        with _as_os_errors(self.address):
            self.client.download_file(self.bucket, self.prefix + name, str(file))
        return file

    def delete(self, name: str) -> None:
        with _as_os_errors(self.address):
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + name)

    def clear(self) -> None:
        for stored in self.list():
            self.delete(stored.name)
        with _as_os_errors(self.address):  # parts of an upload that was cut off are not listed, but cost
            found = self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
            for upload in found.get("Uploads", ()):
                part = {"Bucket": self.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                self.client.abort_multipart_upload(**part)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="remint-checkpoint-") as folder:
            yield Path(folder)


@contextmanager
def _as_os_errors(address: str) -> Iterator[None]:
    """boto3's own errors as OSError with one line."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise OSError(f"{address}: {re.sub('//[^/@]*@', '//', lines[0])}") from error
