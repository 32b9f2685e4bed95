"""The bucket at an address: a folder, or s3://bucket/prefix."""

from __future__ import annotations

import re
from pathlib import Path

from data.core.params import UserError
from flows.storage.protocol import Bucket, check_key


def at(address: str, variable: str = "REMINT_PRODUCTION") -> Bucket:
    """The bucket at a folder or s3://bucket/prefix; `variable` is what messages tell to correct.

    Without one it is where releases are published.
    """
    if "://" not in address:
        from flows.storage.folder import FolderBucket

        return FolderBucket(Path(address).expanduser(), variable)
    scheme, _, rest = address.partition("://")
    name, _, prefix = rest.strip("/").partition("/")
    if scheme != "s3" or not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name):
        # the value is not shown: somebody may have written credentials into it
        raise UserError(f"{variable} is neither a folder nor s3://bucket/prefix (lower case, 3 to 63 characters)")
    if prefix:
        check_key(prefix)
    from flows.storage.s3 import S3Bucket

    return S3Bucket(name, prefix, variable=variable)
