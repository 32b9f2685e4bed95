"""Who may do what in the stack's S3: one table, as SeaweedFS reads it and as Ceph and Amazon do.

Imports nothing but the standard library: `make stack-secrets` runs before anything is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Right = Literal["read", "write"]  # who may write may also read and delete

DATA, ARTIFACTS, PRODUCTION, MLFLOW = "remint-data", "remint-artifacts", "remint-production", "remint-mlflow"
BUCKETS = {
    DATA: "photographs as they arrive",
    ARTIFACTS: "DVC's remote, the ledger of stages, checkpoints",
    PRODUCTION: "releases",
    MLFLOW: "what MLflow's server keeps of runs and models",
}
ADMIN = "admin"  # makes the buckets, puts photographs in; nothing that runs all the time has its keys
USERS: Mapping[str, Mapping[str, Right]] = {
    "mlflow": {MLFLOW: "write"},
    "worker": {DATA: "read", ARTIFACTS: "write"},
    "releaser": {DATA: "read", ARTIFACTS: "write", PRODUCTION: "write"},
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
SEAWEED: Mapping[Right, tuple[str, ...]] = {"read": ("Read", "List"), "write": ("Read", "List", "Write", "Tagging")}


def identities(keys: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    """SeaweedFS's `s3.json`. keys: (access key, secret key) of each user and of the administrator."""

    def identity(name: str, actions: list[str]) -> dict[str, Any]:
        access, secret = keys[name]
        return {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}

    every = [identity(ADMIN, ["Admin", "Read", "List", "Write", "Tagging"])]
    for name, rights in USERS.items():
        every.append(
            identity(name, [f"{word}:{bucket}" for bucket, right in rights.items() for word in SEAWEED[right]])
        )
    return {"identities": every}


def policy(bucket: str) -> dict[str, Any]:
    """The bucket's policy, for a server whose buckets have such: Ceph, Amazon."""
    statements = []
    for name, rights in USERS.items():
        if bucket in rights:
            statements.append(
                {
                    "Sid": name,
                    "Effect": "Allow",
                    "Principal": {"AWS": [f"arn:aws:iam:::user/{name}"]},
                    "Action": list(WRITE if rights[bucket] == "write" else READ),
                    "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
                }
            )
    return {"Version": "2012-10-17", "Statement": statements}
