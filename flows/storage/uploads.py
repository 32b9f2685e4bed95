"""Uploads in parts, begun in a bucket on S3 and neither finished nor given up: no list shows them, but they cost.

uploads = Uploads("bucket", "prefix", variable="REMINT_PRODUCTION")
for upload in uploads.unfinished(): uploads.give_up(upload.key, upload.id)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from botocore.exceptions import ClientError

from flows.storage.s3 import S3Bucket

GONE = "NoSuchUpload"  # it has ended meanwhile


@dataclass(frozen=True)
class Upload:
    """One upload that is not at its end."""

    key: str  # in the S3 bucket, with the prefix
    id: str
    age: float  # seconds since it was begun, by the server's clock alone
    bytes: int  # of the parts that are there


class Uploads(S3Bucket):
    """The uploads under way below s3://bucket/prefix. Every method may raise UserError: the server does not answer."""

    def unfinished(self) -> Iterator[Upload]:
        with self._explained("list", "uploads"):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix):
                now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
                for found in page.get("Uploads", []):
                    key, identifier = found["Key"], found["UploadId"]
                    age = (now - found["Initiated"]).total_seconds()
                    yield Upload(key, identifier, age, self._size(key, identifier))

    def give_up(self, key: str, identifier: str) -> None:
        """End an upload and free its parts."""
        with self._explained("give up the upload of", key):
            try:
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=identifier)
            except ClientError as error:
                if error.response["Error"]["Code"] != GONE:
                    raise

    def _size(self, key: str, identifier: str) -> int:
        pages = self._client.get_paginator("list_parts").paginate(Bucket=self.bucket, Key=key, UploadId=identifier)
        try:
            return sum(part["Size"] for page in pages for part in page.get("Parts", []))
        except ClientError as error:
            if error.response["Error"]["Code"] != GONE:
                raise
            return 0
