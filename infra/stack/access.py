"""Who may do what in the stack's S3: one table, as SeaweedFS reads it and as Ceph and Amazon do.

Imports nothing but the standard library: `make stack-secrets` runs before anything is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Right = Literal["read", "write", "add"]  # who may write may also read and delete; who may add, only put and list

DATA, ARTIFACTS, PRODUCTION, MLFLOW = "remint-data", "remint-artifacts", "remint-production", "remint-mlflow"
BUCKETS = {
    DATA: "photographs as they arrive",
    ARTIFACTS: "DVC's remote, orders for workers, checkpoints",
    PRODUCTION: "releases",
    MLFLOW: "what MLflow's server keeps of runs and models",
}
ADMIN = "admin"  # makes the buckets; nothing that runs all the time has its keys
INCOMING = f"{DATA}/photographs"  # REMINT_INCOMING in infra/stack/client.env
USERS: Mapping[str, Mapping[str, Right]] = {  # bucket, or bucket/prefix
    "mlflow": {MLFLOW: "write"},
    "worker": {DATA: "read", ARTIFACTS: "write"},
    "releaser": {DATA: "read", ARTIFACTS: "write", PRODUCTION: "write"},
    "photographer": {INCOMING: "add"},
    "reader": {PRODUCTION: "read"},
}
READ = ("s3:GetObject", "s3:ListBucket", "s3:GetBucketLocation")
WRITE = (
    *READ,
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
    "s3:ListBucketMultipartUploads",
)
ADD = ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
ACTIONS: Mapping[Right, tuple[str, ...]] = {"read": READ, "write": WRITE, "add": ADD}
SEAWEED: Mapping[Right, tuple[str, ...]] = {
    "read": ("Read", "List"),
    "write": ("Read", "List", "Write", "Tagging"),
    "add": ("List", "Write"),  # its Write includes to delete: what was taken in lies elsewhere by then
}


def identities(keys: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """SeaweedFS's `s3.json`. keys: (access key, secret key) of each user and of the administrator."""

    def identity(name: str, actions: list[str]) -> dict[str, Any]:
        access, secret = keys[name]
        return {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}

    every = [identity(ADMIN, ["Admin", "Read", "List", "Write", "Tagging"])]
    for name, rights in USERS.items():
        places = {place: f"{place}/*" if "/" in place else place for place in rights}
        actions = [f"{word}:{places[place]}" for place, right in rights.items() for word in SEAWEED[right]]
        every.append(identity(name, actions))
    return {"identities": every}


def policy(bucket: str) -> dict[str, Any]:
    """The bucket's policy, for a server whose buckets have such: Ceph, Amazon."""
    statements = []
    for name, rights in USERS.items():
        for place, right in rights.items():
            whole, _, prefix = place.partition("/")
            if whole == bucket:
                statements += _statements(name, right, f"arn:aws:s3:::{bucket}", prefix)
    return {"Version": "2012-10-17", "Statement": statements}


def _statements(user: str, right: Right, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """What a user may do in a bucket, or below a prefix of it."""
    own = {"Effect": "Allow", "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]}}
    actions = {"Sid": user, **own, "Action": list(ACTIONS[right])}
    if not prefix:
        return [{**actions, "Resource": [bucket, f"{bucket}/*"]}]
    listed = {
        "Sid": f"{user}Lists",
        **own,
        "Action": ["s3:ListBucket"],
        "Resource": [bucket],
        "Condition": {"StringLike": {"s3:prefix": [f"{prefix}/*"]}},
    }
    return [{**actions, "Resource": [f"{bucket}/{prefix}/*"]}, listed]
