"""What every test stands on: one torch thread (bytes and golden losses depend on it), no telemetry, no user's git."""

import json
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests import postgres, s3, workers

os.environ.update(
    OMP_NUM_THREADS="1",
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
    DVC_NO_ANALYTICS="true",
    GX_ANALYTICS_ENABLED="false",
    MLFLOW_DISABLE_TELEMETRY="true",
    HF_HUB_OFFLINE="1",
    COLUMNS="200",  # tests read tables' words; tests/unit/test_columns.py is about narrow terminals
    GIT_AUTHOR_NAME="Test",
    GIT_AUTHOR_EMAIL="test@example.org",
    GIT_COMMITTER_NAME="Test",
    GIT_COMMITTER_EMAIL="test@example.org",
)
# Tests started in the background inherit that Ctrl-C is ignored, and so would the programs that they interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What is run in this process may set its environment, as a command does; afterwards it is as it was."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a real S3 server, Ceph's object gateway, which is started once and takes 13 s."""
    if not s3.installed():
        pytest.skip("radosgw is not installed; .ci/run names the packages")
    with s3.server(tmp_path_factory.mktemp("ceph")) as environment:
        yield environment


@pytest.fixture
def s3_address(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket on the server, which this test's environment now names."""
    import boto3

    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials of an earlier test
    bucket = f"remint-{uuid.uuid4().hex[:12]}"
    boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture(params=["folder", "s3"])
def production(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where releases are published, empty: what REMINT_PRODUCTION says, once a folder and once a bucket in S3."""
    return str(tmp_path / "production") if request.param == "folder" else request.getfixturevalue("s3_address")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A real PostgreSQL server, which is started once and takes 2 s."""
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed; .ci/run names the package")
    with postgres.server() as running:
        yield running


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[workers.PrefectServer]:
    """A Prefect server that is started once; its tests leave no waiting run and no worker there."""
    with workers.prefect(tmp_path_factory.mktemp("prefect")) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: what REMINT_CATALOGUE says, once of SQLite and once of PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'catalogue.db'}"
    return str(request.getfixturevalue("postgres_server").empty_database())


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Any]:
    """Publishes a release with small random weights, bundles and pointer, and returns the pointer.

    publish(bucket, "images", {"tokenizer": 1, "maskgit": 2}, size=1000): models by the seed of their weights, and
    how many numbers those hold.
    """
    from flows.release import bundle, pointers

    def make(bucket: Any, family: str, seeds: Mapping[str, int], size: int = 1000, **changes: Any) -> pointers.Pointer:
        before = pointers.newest(bucket, family)
        number = before.number + 1 if before else 1
        members = []
        for model, seed in sorted(seeds.items()):
            made = _bundle(tmp_path / f"{model}-{seed}-{size}", model, seed, size)
            found = made.manifest
            members.append(
                pointers.Member(model, found.version, found.weights, found.tag, bundle.publish(bucket, made))
            )
        values = {"run": "20261121T100000Z-1a2b3c4", "commit": "c" * 40, "who": "ann", "why": "better", "at": "2026"}
        previous = pointers.digest(before) if before else ""
        made = pointers.Pointer(family, number, tuple(members), previous=previous, **(values | changes))
        pointers.append(bucket, made)
        return made

    return make


def _bundle(folder: Path, model: str, seed: int, size: int) -> Any:
    """A bundle of random weights with all its files in `folder`."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    from data.core.digests import sha256
    from flows.release.bundle import FILES, Bundle, Evaluation, File, Lineage, Manifest

    folder.mkdir(exist_ok=True)
    save_file({"w": np.random.default_rng(seed).normal(size=size)}, folder / "model.safetensors")
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).write_text(json.dumps({"seed": seed}))
    (folder / "metrics.json").write_text(json.dumps({"psnr": 20.0 + seed}))
    pq.write_table(pa.table({"key": ["a", "b"], "psnr": [20.0, 20.0 + seed]}), folder / "per_sample.parquet")
    paths = {name: folder / name for name in sorted(FILES)}
    files = tuple(File(name, path.stat().st_size, sha256(path)) for name, path in paths.items())
    lineage = Lineage("run", "c" * 40, "run/run", "d" * 64, "e" * 64, {"scenes": "f.dir"}, {})
    evaluation = Evaluation("0" * 64, {"psnr": 20.0 + seed})
    weights = sha256(folder / "model.safetensors")
    return Bundle(Manifest(model, seed, weights, f"{model}@v{seed}.0.0", files, lineage, evaluation), paths)
