"""What botocore raises, as one line that names the server, the bucket and the next step."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from data.core.params import UserError
from flows.storage.protocol import Denied

KINDS = (aws.ClientError, aws.BotoCoreError, ResponseParserError)  # all that it raises
UNANSWERED = (aws.HTTPClientError, aws.ConnectionError)
ABSENT = ("NoSuchKey", "404", "NotFound")
LOST = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "403", "ExpiredToken", "InvalidToken")


def explain(error: Exception, failed: str, bucket: str, url: str, variable: str) -> UserError:
    """The error to raise instead.

    failed: what could not be done, as "cannot read KEY in s3://bucket". url: the server's. variable: names the bucket.
    """
    server = _endpoint(url)
    if isinstance(error, aws.ClientError):
        return _answered(error, failed, bucket, server, variable)
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return UserError(f"{failed}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if isinstance(error, aws.ConnectTimeoutError | aws.ReadTimeoutError):
        return UserError(f"{failed}: {server} did not answer in time; check AWS_ENDPOINT_URL, or try later")
    if isinstance(error, aws.ConnectionError):
        reason = f"{server} cannot be reached ({type(error).__name__})"
        return UserError(f"{failed}: {reason}; check AWS_ENDPOINT_URL, or try later")
    if isinstance(error, aws.HTTPClientError):
        return UserError(f"{failed}: {server} breaks off its answers; check AWS_ENDPOINT_URL, or try later")
    if isinstance(error, ResponseParserError):
        return UserError(f"{failed}: {server} does not speak S3; check AWS_ENDPOINT_URL")
    return UserError(f"{failed}: {type(error).__name__}; check the AWS_* variables")


def _answered(error: aws.ClientError, failed: str, bucket: str, server: str, variable: str) -> UserError:
    answer = code(error)
    if answer == "NoSuchBucket" or answer in ABSENT:
        return UserError(f"{failed}: {server} has no bucket {bucket}; create it, or correct {variable}")
    if answer in REFUSED:
        return Denied(
            f"{failed}: {server} refuses ({answer}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may "
            "do"
        )
    advice = "try again later" if status(error) >= 500 else f"check {variable} and the AWS_* variables"
    return UserError(f"{failed}: {server} answers {answer}; {advice}")


def code(error: aws.ClientError) -> str:
    """The server's word for what is wrong; plain letters, whatever it sends."""
    return re.sub(r"[^A-Za-z0-9]", "", str(error.response.get("Error", {}).get("Code")))[:40] or "an error"


def status(error: aws.ClientError) -> int:
    """The HTTP status of an answer, 0 if it has none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _endpoint(url: str) -> str:
    """The server's address without a user name or password that somebody wrote into it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
