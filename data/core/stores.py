"""Where unfinished work and photographs lie: a folder, or a bucket on S3. Both give and take whole files."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from data.core.entry import Unavailable
from data.core.params import UserError


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

    def has(self, name: str) -> bool:
        """Whether a file is there."""

    def delete(self, name: str) -> None:
        """Remove a file if it is there."""

    def clear(self) -> None:
        """Remove everything."""

    def scratch(self) -> Any:
        """Context: a folder for files that are being written; what is left in it goes at the end."""


def open(address: str, variable: str = "REMINT_CHECKPOINTS") -> Store:
    """The store at `address`, which `variable` named: a folder, or s3://bucket/prefix."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return Folder(Path(address))
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket):
        raise UserError(f"{variable} is neither a folder nor s3://bucket/prefix")  # unquoted: it may hold a key
    return Bucket(bucket, prefix.strip("/"), variable)


class Folder:
    """A folder; files that are being written lie in folders of their own in it, whose names begin with a dot."""

    def __init__(self, path: Path) -> None:
        self.path, self.address = path, str(path)

    def list(self) -> list[Stored]:
        found = []
        for place, folders, names in os.walk(self.path, onerror=_unless_gone):
            folders[:] = [one for one in folders if not one.startswith(".")]
            for file in (Path(place, name) for name in names if not name.startswith(".")):
                with suppress(FileNotFoundError):  # somebody else removed it just now
                    about = file.stat()
                    found.append(Stored(file.relative_to(self.path).as_posix(), about.st_size, about.st_mtime))
        return sorted(found, key=lambda one: Path(one.name))

    def put(self, file: Path, name: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)  # noqa: PTH105 - atomic

    def get(self, name: str, scratch: Path) -> Path:
        return self.path / name

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def clear(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Locked while it is used, so that others see which ones a killed process left, and remove only those."""
        self.path.mkdir(parents=True, exist_ok=True)
        for left in self.path.glob(".scratch-*"):
            with _locked(left) as unused:
                if unused:
                    shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=".new-", dir=self.path))
        with _locked(folder):
            folder = folder.rename(folder.with_name(folder.name.replace(".new-", ".scratch-")))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def _unless_gone(error: OSError) -> None:
    """A folder that is not there, or not any more, holds nothing; one that cannot be read is an error."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


class Bucket:
    """A prefix in an S3 bucket. Keys and endpoint come from the environment, as boto3 reads it."""

    def __init__(self, bucket: str, prefix: str, variable: str = "REMINT_CHECKPOINTS") -> None:
        self.bucket, self.prefix = bucket, f"{prefix}/" if prefix else ""
        self.address = f"s3://{bucket}/{prefix}"
        try:
            import boto3
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise UserError(f"{variable}={self.address} needs boto3; install it (pip install boto3)") from None
        own_server = "AWS_ENDPOINT_URL" in os.environ or "AWS_ENDPOINT_URL_S3" in os.environ
        config = Config(
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 4},
            s3={"addressing_style": "path" if own_server else "auto"},
            request_checksum_calculation="when_required",  # servers that are not Amazon's know no newer checksums
            response_checksum_validation="when_required",
        )
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        try:  # a session of its own: boto3's common one keeps the first credentials that it saw
            self.client: Any = boto3.session.Session().client("s3", region_name=region, config=config)
        except (ValueError, BotoCoreError):
            raise UserError(
                f"AWS_ENDPOINT_URL or AWS_REGION is not valid: {self.address} cannot be reached; correct them"
            ) from None

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

    def has(self, name: str) -> bool:
        with _as_os_errors(self.address):
            found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix + name, MaxKeys=1)
        return any(row["Key"] == self.prefix + name for row in found.get("Contents", ()))

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
        with tempfile.TemporaryDirectory(prefix="remint-store-") as folder:
            yield Path(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether this process alone holds a folder, for as long as it does."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # gone, or no folder
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = True
    except OSError:  # somebody else's, or a file system without locks
        mine = False
    try:
        yield mine
    finally:
        os.close(handle)


@contextmanager
def _as_os_errors(address: str) -> Iterator[None]:
    """boto3's own errors as an OSError with one line."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise Unavailable(f"{address}: {re.sub('//[^/@]*@', '//', lines[0])}") from error
