"""Thirty runs on workers while parts of the stack die: the right bytes in the end, and nothing lost or half done.

Every run trains the chain of `tests/chain.py` for another seed on three workers, over a real PostgreSQL, a real S3 and
servers of MLflow and Prefect. At a random instant one part dies, hangs or lies. The run must end well, or fail with a
plain message and end well when it is started again.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from flows.release import recorded, stores
from flows.settings import Settings
from flows.storage import bucket
from models.tracking import server
from tests import chain, postgres, released, workers
from tests.proxy import Proxy

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(1800)]

SMALL_DISK = 48 << 20  # bytes of the disk that one worker has
DISTURBED_SECONDS = 3.0
OVER_SECONDS = 900.0  # on a busy machine; 40 on a quiet one
RECOVERED_SECONDS = 120.0


@dataclass
class World:
    """A stack with three workers, and one who starts runs."""

    root: Path  # of the repository that runs are started from
    farm: workers.Farm
    database: postgres.Server
    prefect: workers.PrefectServer
    s3: Proxy
    small: Path  # the small disk, "" where it cannot be made
    mlflow: subprocess.Popen | None = None
    mlflow_command: list[str] = field(default_factory=list)

    def remint(self, *words: str) -> subprocess.Popen:
        known = workers.foreign(os.environ)
        command = [sys.executable, "-c", "from flows.cli import main; main()", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "start_new_session": True}
        return subprocess.Popen(command, cwd=self.root, env={**known, **self.farm.environment}, text=True, **pipes)

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.remint(*words)
        out, err = process.communicate(timeout=OVER_SECONDS)
        return process.returncode, out, err

    def start_mlflow(self) -> None:
        with (self.farm.folder / "mlflow.log").open("a") as log:
            self.mlflow = subprocess.Popen(
                self.mlflow_command,
                cwd=self.farm.folder,
                env={**workers.foreign(os.environ), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop_mlflow(self) -> None:
        if self.mlflow is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.mlflow.pid, signal.SIGKILL)
            self.mlflow.wait()

    def recovers(self) -> None:
        """Wait until everything is there again that was disturbed."""
        farm, address = self.farm, self.farm.environment["REMINT_MLFLOW_URI"]
        farm.wait(lambda: server.answers(address) or None, "MLflow server", RECOVERED_SECONDS)
        for worker in self.living():
            farm.wait(lambda w=worker: w.name in farm.online(w.pool) or None, worker.name, RECOVERED_SECONDS)

    def living(self) -> list[workers.Worker]:
        return [worker for worker in self.farm.workers if worker.process.poll() is None]


# What goes wrong: each takes the world and a random generator, and comes back when it is over.


def a_worker_is_killed(world: World, seeded: random.Random) -> None:
    worker = seeded.choice(world.living())
    worker.kill()
    time.sleep(seeded.uniform(0, DISTURBED_SECONDS))
    world.farm.start(worker.name.split("-")[0], worker.name, wait=False)


def mlflow_is_killed(world: World, seeded: random.Random) -> None:
    world.stop_mlflow()
    time.sleep(seeded.uniform(0, DISTURBED_SECONDS))
    world.start_mlflow()


def postgresql_restarts(world: World, seeded: random.Random) -> None:
    world.database.stop("immediate" if seeded.random() < 0.5 else "fast")
    time.sleep(seeded.uniform(0, DISTURBED_SECONDS))
    world.database.start()


def prefect_restarts(world: World, seeded: random.Random) -> None:
    world.prefect.stop()
    time.sleep(seeded.uniform(0, DISTURBED_SECONDS))
    world.prefect.start()


def s3_refuses(world: World, seeded: random.Random) -> None:
    world.s3.canned = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    time.sleep(seeded.uniform(0.5, DISTURBED_SECONDS))
    world.s3.canned = None


def s3_is_slow(world: World, seeded: random.Random) -> None:
    def late(position: int, data: bytes) -> bytes:
        time.sleep(0.3)
        return data

    _answer(world, late, seeded)


def s3_breaks_off(world: World, seeded: random.Random) -> None:
    _answer(world, lambda position, data: data if seeded.random() < 0.7 else None, seeded)


def a_disk_is_full(world: World, seeded: random.Random) -> None:
    filler = world.small / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        for _ in range(SMALL_DISK >> 20):
            file.write(bytes(1 << 20))
            file.flush()
    time.sleep(seeded.uniform(1, DISTURBED_SECONDS))
    filler.unlink()


def _answer(world: World, change, seeded: random.Random) -> None:
    plain, world.s3.answer = world.s3.answer, change
    time.sleep(seeded.uniform(1, DISTURBED_SECONDS))
    world.s3.answer = plain


FAULTS = [
    a_worker_is_killed,
    mlflow_is_killed,
    postgresql_restarts,
    prefect_restarts,
    s3_refuses,
    s3_is_slow,
    s3_breaks_off,
    a_disk_is_full,
    "the run is killed",
    "a second run is started",
]


@pytest.fixture(scope="module")
def world(s3_server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    import boto3

    folder = tmp_path_factory.mktemp("chaos")
    proxy = Proxy(int(s3_server["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]))
    chain.make(folder / "project", pace=0.2, steps=5)
    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed; .ci/run names the package")
    with (
        recorded.environment(s3_server),
        postgres.server() as database,
        workers.prefect(folder / "prefect") as prefect,
        _small(folder) as small,
    ):
        boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket="chaos")
        port = workers.free_port()
        address = database.empty_database()
        variables = {
            **s3_server,
            "AWS_ENDPOINT_URL": proxy.url,
            "REMINT_CATALOGUE": address.replace("postgresql:", "postgresql+psycopg:"),
            "REMINT_PRODUCTION": "s3://chaos/production",
            "REMINT_MLFLOW_URI": f"http://127.0.0.1:{port}",
        }
        with workers.farm(folder / "farm", folder / "project", prefect.api, "s3://chaos/shared", **variables) as farm:
            made = World(folder / "project", farm, database, prefect, proxy, small)
            made.mlflow_command = [
                str(Path(sys.executable).with_name("mlflow")),
                *("server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
                *("--artifacts-destination", str(folder / "mlflow-artifacts"), "--serve-artifacts"),
            ]
            made.start_mlflow()
            farm.wait(lambda: server.answers(variables["REMINT_MLFLOW_URI"]) or None, "MLflow server", 90.0)
            (farm.folder / "machines").mkdir(parents=True, exist_ok=True)
            if small != Path():
                (farm.folder / "machines" / "gpu-small").symlink_to(small / "clone")
                subprocess.run(["git", "clone", "-q", str(farm.origin), str(small / "clone")], check=True)
            try:
                for name in ("cpu-one", "gpu-one", "gpu-small"):
                    farm.start(name.split("-")[0], name)
                code, _, err = made.run("retrain")
                assert code == 0, err
                yield made
            finally:
                made.stop_mlflow()


@contextlib.contextmanager
def _small(folder: Path) -> Iterator[Path]:
    """A disk of a few megabytes; Path() where this user may not mount one."""
    disk = folder / "small"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        shutil.rmtree(disk)
        yield Path()
        return
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)


@pytest.fixture(scope="module")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone in which DVC alone runs the same seeds."""
    root = tmp_path_factory.mktemp("undisturbed") / "project"
    subprocess.run(["git", "clone", "-q", str(world.root), str(root)], check=True)
    return root


@pytest.mark.parametrize("number", range(30))
def test_a_run_survives_what_happens_to_the_stack(world: World, undisturbed: Path, number: int):
    seeded = random.Random(number)
    fault = FAULTS[number % len(FAULTS)]
    if fault is a_disk_is_full and world.small == Path():
        pytest.skip("no small disk can be mounted: needs root")
    seed = f"seed={100 + number}"
    process = world.remint("retrain", "--set", seed)
    words: list[str] = []
    listening = threading.Thread(target=lambda: words.append(process.stderr.read()))
    listening.start()
    time.sleep(seeded.uniform(2.0, 20.0))
    if fault == "the run is killed":
        os.killpg(process.pid, signal.SIGKILL)
    elif fault == "a second run is started":
        code, _, err = world.run("retrain", "--set", seed)
        assert "Traceback" not in err, err
    else:
        fault(world, seeded)
    process.wait(OVER_SECONDS)
    listening.join()
    assert "Traceback" not in words[0], words[0]
    world.recovers()
    if process.returncode:
        code, out, err = world.run("retrain", "--set", seed)
        assert code == 0, (out, err, words[0])
    check(world, undisturbed, seed)


def check(world: World, undisturbed: Path, seed: str) -> None:
    """The right bytes, one whole release of each family, and nothing left behind."""
    code, out, err = world.run("doctor")
    assert code == 0, out + err
    text = (undisturbed / "params.yaml").read_text()
    (undisturbed / "params.yaml").write_text(re.sub("seed: .*", seed.replace("=", ": "), text))
    command = [sys.executable, "-m", "dvc", "repro", "--quiet"]
    subprocess.run(command, cwd=undisturbed, env=workers.foreign(os.environ), check=True, capture_output=True)
    assert lock(world.root) == yaml.safe_load((undisturbed / "dvc.lock").read_text())
    with recorded.environment(world.farm.environment):
        with stores.opened(Settings(root=world.root)) as places:
            for family in ("images", "depth"):
                released.places_agree(places, family)
        left = bucket.at(world.farm.environment["REMINT_LEDGER"]).list("stages/")
    assert left == [], left
    branches = released.git(world.farm.origin, "for-each-ref", "--format=%(refname)", "refs/heads/remint/")
    assert branches == ""
    assert [path.name for path in (world.root / ".remint/worktrees").glob("2*")] == []


def lock(root: Path) -> dict:
    newest = released.git(root, "for-each-ref", "--sort=-refname", "--format=%(refname:short)", "refs/tags/run/")
    return yaml.safe_load(released.git(root, "show", f"{newest.splitlines()[0]}:dvc.lock"))
