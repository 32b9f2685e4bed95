"""A bucket in S3 or a server that speaks it: conditional writes, checksums, short time-outs, errors in one line.

Address and credentials come from the environment, as for every AWS tool: AWS_ENDPOINT_URL (for a server that is not
Amazon's), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

from botocore import exceptions as aws

from data.core import digests
from data.core.params import UserError
from flows.storage import s3_errors
from flows.storage.protocol import SMALL, NotThere, Taken, Watch, check_key
from flows.storage.s3_errors import ABSENT, LOST, UNANSWERED, code, status
from flows.storage.transfer import ATTEMPTS, CHUNK, Broken, announced, receive, wait

TRIES = 4  # of a request, by the library, with growing waits that are out of step with others
PART_BYTES = 64 << 20  # S3 takes 10,000 parts of a file, of at least 5 MiB: enough for 640 GB
CONNECT_SECONDS, READ_SECONDS = 5.0, 20.0  # without a single byte
T = TypeVar("T")
SHA256, WRITER = "sha256", "writer"  # metadata of an object: its digest, and which call wrote it


class S3Bucket:
    """A `Bucket` under s3://bucket/prefix."""

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        timeout: float = READ_SECONDS,
        part_bytes: int = PART_BYTES,
        variable: str = "REMINT_PRODUCTION",
    ) -> None:
        self.variable = variable
        self.bucket, self.prefix = bucket, f"{prefix}/" if prefix else ""
        self.name = f"s3://{bucket}/{prefix}".rstrip("/")
        self.timeout, self.part_bytes = timeout, part_bytes
        self._proven = False  # whether the server has refused to overwrite: tried once, on the first object created

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        own_server = "AWS_ENDPOINT_URL" in os.environ or "AWS_ENDPOINT_URL_S3" in os.environ
        config = Config(
            connect_timeout=min(CONNECT_SECONDS, self.timeout),
            read_timeout=self.timeout,
            retries={"mode": "standard", "total_max_attempts": TRIES},
            max_pool_connections=16,
            # the server compares every body with its SHA-256, which is signed, and not only over http
            s3={"addressing_style": "path" if own_server else "auto", "payload_signing_enabled": True},
            # Content-MD5 is sent instead, which servers know that do not know the newer checksums
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        try:
            return boto3.session.Session().client("s3", region_name=region, config=config)
        except (ValueError, aws.BotoCoreError):
            raise UserError(
                f"AWS_ENDPOINT_URL or AWS_REGION is not valid, so {self.name} cannot be reached; correct them"
            ) from None

    def read(self, key: str, limit: int = SMALL) -> bytes:
        def whole() -> bytes:
            answer = self._client.get_object(Bucket=self.bucket, Key=self._key(key))
            data = bytearray()
            for chunk in _body(answer):
                data += chunk
                if len(data) > limit:
                    raise UserError(f"{self.name}/{key} has more than {limit} bytes, which no such file has; remove it")
            return bytes(data)

        return self._retried(key, whole)

    def create(self, key: str, data: bytes) -> None:
        """One conditional request; who repeats it because an answer was lost finds the object to be its own."""
        with self._explained("create", key):
            if not self._put(key, data, _digest(data)):
                raise Taken(f"{self.name}/{key} is there already")
            if not self._proven and self._put(key, data, _digest(data)):
                raise UserError(
                    f"{self.name} overwrites what is there: its server ignores `If-None-Match: *`, so that two "
                    "promotions could both win. Use a server that knows conditional writes"
                )
            self._proven = True

    def replace(self, key: str, data: bytes) -> None:
        with self._explained("write", key):
            self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=data, ContentMD5=_md5(data))

    def upload(self, key: str, path: Path, sha256: str = "") -> None:
        found = digests.sha256(path)
        if sha256 and found != sha256:
            raise UserError(f"{path} was changed: expected sha256 {sha256}, found {found}; make it again")
        size = path.stat().st_size
        with self._explained("upload", key):
            if self._same(key, size, found):
                return
            with path.open("rb") as file:
                if size > self.part_bytes:
                    self._put_parts(key, file, found)
                else:
                    self._put(key, file.read(), found)
            if not self._same(key, size, found):
                raise UserError(f"{self.name} does not keep what is written to it ({key}); look at the server's logs")

    def download(self, key: str, path: Path, size: int, sha256: str, watch: Watch | None = None) -> None:
        def chunks(offset: int) -> Iterator[bytes]:
            with self._explained("download", key):
                answer = self._client.get_object(
                    Bucket=self.bucket, Key=self._key(key), **({"Range": f"bytes={offset}-"} if offset else {})
                )
                begins, total = _extent(answer)
                if total != size:
                    raise UserError(f"{self.name}/{key} has {total} bytes, {size} were announced; publish it again")
                for chunk in _body(answer):
                    fresh = chunk[max(0, offset - begins) :]  # a server may ignore the range
                    begins += len(chunk)
                    if fresh:
                        yield fresh

        receive(chunks, path, size, sha256, f"{self.name}/{key}", watch)

    def verify(self, key: str, size: int, sha256: str = "") -> None:
        with self._explained("read", key):
            there = self._head(key)
        if there is None:
            raise NotThere(f"{self.name} holds no {key}")
        same = there["ContentLength"] == size  # its bytes are read: what its metadata say may be of others
        found = self._retried(key, lambda: self._content_digest(key)) if sha256 and same else ""
        announced(f"{self.name}/{key}", size, there["ContentLength"], sha256, found)

    def list(self, prefix: str) -> list[str]:
        folder = prefix.rpartition("/")[0]
        if folder:
            check_key(folder)
        found: list[str] = []
        with self._explained("list", prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                found += [entry["Key"].removeprefix(self.prefix) for entry in page.get("Contents", [])]
        return sorted(found)

    def delete(self, key: str) -> None:
        with self._explained("delete", key):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))

    def _key(self, key: str) -> str:
        return self.prefix + check_key(key)

    def _put(self, key: str, data: bytes, sha256: str) -> bool:
        """Write an object that is not there yet; False if somebody else has written it."""
        writer = uuid.uuid4().hex
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=self._key(key),
                    Body=data,
                    ContentMD5=_md5(data),
                    IfNoneMatch="*",
                    Metadata={SHA256: sha256, WRITER: writer},
                )
                return True
            except (aws.ClientError, *UNANSWERED) as error:
                lost = isinstance(error, aws.ClientError) and code(error) in LOST
                if isinstance(error, aws.ClientError) and not lost and status(error) < 500:
                    raise
                with contextlib.suppress(aws.ClientError, *UNANSWERED):  # it may have been written all the same
                    there = self._head(key)
                    if there is not None:
                        return there["Metadata"].get(WRITER) == writer
                if not lost:
                    raise
            wait(attempt)  # a conflict with a writer that did not finish
        raise UserError(f"other programs keep writing {key} in {self.name} without an end; run again")

    def _put_parts(self, key: str, file: IO[bytes], sha256: str) -> None:
        """Write a large file in parts, each with its checksum; what an interrupted call left is taken away."""
        place = {"Bucket": self.bucket, "Key": self._key(key)}
        started = self._client.create_multipart_upload(**place, Metadata={SHA256: sha256, WRITER: uuid.uuid4().hex})
        place["UploadId"] = started["UploadId"]
        try:
            parts: list[Mapping[str, Any]] = []
            while data := file.read(self.part_bytes):
                number = len(parts) + 1
                made = self._client.upload_part(**place, PartNumber=number, Body=data, ContentMD5=_md5(data))
                parts.append({"PartNumber": number, "ETag": made["ETag"]})
            self._client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
        except aws.ClientError as error:
            self._abort(place)
            if code(error) not in LOST:  # lost: the caller looks at what is there
                raise
        except BaseException:
            self._abort(place)
            raise

    def _abort(self, place: Mapping[str, Any]) -> None:
        with contextlib.suppress(aws.BotoCoreError, aws.ClientError):
            self._client.abort_multipart_upload(**place)

    def _head(self, key: str) -> Mapping[str, Any] | None:
        try:
            return self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except aws.ClientError as error:
            if code(error) in ABSENT:
                return None
            raise

    def _same(self, key: str, size: int, sha256: str) -> bool:
        """Whether the object is there with these bytes; UserError if it has others."""
        there = self._head(key)
        if there is None:
            return False
        found = there["Metadata"].get(SHA256) or self._content_digest(key)  # put there by another program
        if there["ContentLength"] != size or found != sha256:
            raise UserError(
                f"{self.name}/{key} holds other bytes: {there['ContentLength']} of sha256 {found}, not {size} of "
                f"{sha256}; what is published never changes: remint doctor"
            )
        return True

    def _retried(self, key: str, read: Callable[[], T]) -> T:
        """What `read` reads of an object, begun again where the answer broke off."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self._explained("read", key):
                    return read()
            except Broken as error:
                if attempt == ATTEMPTS:
                    raise UserError(f"cannot read {key} in {self.name}: {error}; try again later") from None
                wait(attempt)
        raise AssertionError

    def _content_digest(self, key: str) -> str:
        digest = hashlib.sha256()
        for chunk in _body(self._client.get_object(Bucket=self.bucket, Key=self._key(key))):
            digest.update(chunk)
        return digest.hexdigest()

    @contextlib.contextmanager
    def _explained(self, operation: str, key: str) -> Iterator[None]:
        """Turn what boto3 raises into one line that names the bucket, the operation and the next step."""
        try:
            yield
        except s3_errors.KINDS as error:
            if isinstance(error, aws.ClientError) and code(error) in ABSENT and operation != "list":
                raise NotThere(f"{self.name} holds no {key}") from None
            failed = f"cannot {operation} {key or 'anything'} in {self.name}"
            raise s3_errors.explain(error, failed, self.bucket, self._client.meta.endpoint_url, self.variable) from None


def _body(answer: Mapping[str, Any]) -> Iterator[bytes]:
    """The bytes of an answer; Broken if they stop early."""
    try:
        yield from answer["Body"].iter_chunks(CHUNK)
    except (aws.IncompleteReadError, aws.ReadTimeoutError, aws.ResponseStreamingError) as error:
        raise Broken(f"the answer broke off ({type(error).__name__})") from None


def _extent(answer: Mapping[str, Any]) -> tuple[int, int]:
    """(first byte, size of the whole object) of an answer, partial or not."""
    if ranged := re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.get("ContentRange") or ""):
        return int(ranged[1]), int(ranged[2])
    if "ContentLength" not in answer:
        raise Broken("the answer does not say how long it is")
    return 0, answer["ContentLength"]


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
