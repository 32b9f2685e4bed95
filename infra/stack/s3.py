"""S3 without containers: Ceph's object gateway from Debian's packages, with the stack's users and their rights."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from botocore import exceptions as aws

from data.core.params import UserError
from infra.stack import access

SCRIPT = Path("infra", "stack", "s3.sh")


def start(root: Path, folder: Path, port: int, keys: Mapping[str, tuple[str, str]]) -> None:
    """Start the server, on disk, with an administrator and the users of `access`; keys of each: access and secret."""
    _script(root, "start", folder, str(port), "disk", keys=keys[access.ADMIN])
    for name in access.USERS:
        _script(root, "user", folder, name, keys=keys[name])


def runs(folder: Path) -> bool:
    """Whether all its daemons live."""
    try:
        numbers = [(folder / f"{name}.pid").read_text().strip() for name in ("mon", "osd", "mgr", "rgw")]
        names = [psutil.Process(int(number)).name() for number in numbers]
    except (OSError, ValueError, psutil.Error):
        return False
    return all(name.startswith(("ceph", "radosgw")) for name in names)


def stop(root: Path, folder: Path) -> None:
    if (folder / "ceph.conf").exists():
        _script(root, "stop", folder)


def client(endpoint: str, keys: tuple[str, str]) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=5,
        read_timeout=20,
        retries={"mode": "standard", "total_max_attempts": 5},
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    access_key, secret_key = keys
    return boto3.session.Session(aws_access_key_id=access_key, aws_secret_access_key=secret_key).client(
        "s3", endpoint_url=endpoint or None, region_name=os.environ.get("AWS_REGION", "us-east-1"), config=config
    )


def make_buckets(s3: Any) -> list[str]:
    """Make the buckets that are missing; their names. UserError says what the server refuses."""
    made = []
    try:
        there = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
        for name in access.BUCKETS:
            if name not in there:
                s3.create_bucket(Bucket=name)
                made.append(name)
    except aws.ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        raise UserError(
            f"S3 refuses to make the buckets ({code}); AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be the "
            "administrator's: see .secrets/bootstrap.env"
        ) from None
    except aws.BotoCoreError as error:
        raise UserError(f"S3 does not answer ({type(error).__name__}); start it, or correct AWS_ENDPOINT_URL") from None
    return made


def grant(s3: Any) -> None:
    """Give the users their rights, on a server that knows bucket policies. (SeaweedFS reads its own table instead.)"""
    for name in access.BUCKETS:
        s3.put_bucket_policy(Bucket=name, Policy=json.dumps(access.policy(name)))


def _script(root: Path, verb: str, folder: Path, *arguments: str, keys: tuple[str, str] = ("", "")) -> None:
    known = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    if keys[0]:
        known |= {"AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}
    command = [str(root / SCRIPT), verb, str(folder), *arguments]
    done = subprocess.run(
        command,
        env=known,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=180,
        check=False,
    )
    if done.returncode:
        raise UserError(f"the S3 server did not {verb}; see its words in {folder / 'start.log'}")
