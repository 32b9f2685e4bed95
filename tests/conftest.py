"""What every test stands on: one torch thread (bytes and golden losses depend on it), no telemetry, no user's git."""

import contextlib
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.update(
    OMP_NUM_THREADS="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
    DVC_NO_ANALYTICS="true",
    GX_ANALYTICS_ENABLED="false",
    MLFLOW_DISABLE_TELEMETRY="true",
    HF_HUB_OFFLINE="1",
    GIT_AUTHOR_NAME="Test",
    GIT_AUTHOR_EMAIL="test@example.org",
    GIT_COMMITTER_NAME="Test",
    GIT_COMMITTER_EMAIL="test@example.org",
)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a real S3 server, Ceph's object gateway, which is started once and takes 13 s."""
    if shutil.which("radosgw") is None:
        pytest.skip("radosgw is not installed; .ci/run names the packages")
    script, folder = Path(__file__).with_name("s3.sh"), tmp_path_factory.mktemp("ceph")
    try:
        done = subprocess.run(
            [script, "start", folder, str(_free_port())], capture_output=True, text=True, timeout=120, check=True
        )
        yield dict(word.split("=", 1) for word in done.stdout.split())
    finally:
        subprocess.run([script, "stop", folder], check=True)


@pytest.fixture
def s3_address(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket on the server, which this test's environment now names."""
    import boto3

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    bucket = f"remint-{uuid.uuid4().hex[:12]}"
    boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture(params=["folder", "s3"])
def production(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where releases are published, empty: what REMINT_PRODUCTION says, once a folder and once a bucket in S3."""
    return str(tmp_path / "production") if request.param == "folder" else request.getfixturevalue("s3_address")


def _free_port() -> int:
    """A free port whose thousandth successor is free as well: s3.sh takes both."""
    while True:
        with contextlib.suppress(OSError, OverflowError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", one.getsockname()[1] + 1000))
            return int(one.getsockname()[1])
