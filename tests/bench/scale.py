"""What each part of a data-parallel stage costs who orders it: real dispatcher and Prefect server, pretended workers.

    python tests/bench/scale.py                        # 10,000 parts: an hour on two cores, nearly all Prefect's server
    python tests/bench/scale.py --parts 1000 --atonce 64
    python tests/bench/scale.py --parts 1000 --s3      # the ledger on a real S3 server

A process plays the workers: it takes flow runs from the work pool as Prefect's workers do, shows each as running,
writes its outcome into the ledger and ends it. Whole stages it fails, so what is measured is the parts' way alone:
attempts made, submitted, looked at, taken, forgotten. CPU time is that of the orchestrator's process; requests are
counted where they leave it, those of polling among them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

POOL, HOST, NAMED = "cpu", "played", "played worker"
SAMPLES = 10  # of memory, over the run


def project(root: Path) -> None:
    """One stage whose shards can be made one by one."""
    from dvc.repo import Repo

    from tests import released

    root.mkdir()
    released.git(root, "init", "-q")
    Repo.init(str(root)).close()
    stage = {"cmd": "true", "deps": ["code"], "outs": ["artifacts/shards"], "meta": {"pool": POOL, "parts": True}}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"label": stage}}))
    (root / "params.yaml").write_text("seed: 1\n")
    (root / "code").write_text("x\n")
    (root / ".gitignore").write_text("/.remint/\n/artifacts/\n")
    (root / "mlflow").mkdir()
    (root / "mlflow/promotion.yaml").write_text("{}\n")
    released.git(root, "add", "-A")
    released.git(root, "commit", "-q", "-m", "One stage")


def play(at_once: int, seconds: float) -> None:
    """Be the workers of the pool: at most so many flow runs under way, each for so long."""
    from prefect.client.orchestration import get_client
    from prefect.states import Completed, Running

    from flows.settings import Settings
    from flows.workers import orders
    from flows.workers.orders import Ended

    book = orders.opened(Settings(root=Path.cwd(), ledger=os.environ["REMINT_LEDGER"]))
    working: dict[Any, tuple[float, str]] = {}
    beaten = 0.0
    with get_client(sync_client=True) as api:
        while True:
            now = time.monotonic()
            if now - beaten > 5.0:
                beaten = now
                api.request("POST", "/work_pools/{work_pool_name}/workers/heartbeat", None, {"work_pool_name": POOL},
                            json={"name": NAMED, "heartbeat_interval_seconds": 30})  # fmt: skip
            for run, (until, place) in list(working.items()):
                if now >= until:
                    attempt = book.attempt(place)
                    whole = not attempt.order.part
                    book.close(attempt, Ended("failed" if whole else "succeeded", HOST, retry=not whole))
                    api.set_flow_run_state(run, Completed(), force=True)
                    del working[run]
            if free := at_once - len(working):
                body = {"limit": min(free, 100)}
                answer = api.request(
                    "POST", "/work_pools/{name}/get_scheduled_flow_runs", None, {"name": POOL}, json=body
                )
                for row in answer.json():
                    run = row["flow_run"]
                    api.set_flow_run_state(run["id"], Running(), force=True)
                    working[run["id"]] = (now + seconds, run["parameters"]["order"])
            time.sleep(1.0)


@contextlib.contextmanager
def counted(counts: Counter[str]) -> Iterator[None]:
    """Count what leaves this process for Prefect and for the bucket."""
    import httpx

    from flows.storage.folder import FolderBucket
    from flows.storage.s3 import S3Bucket

    with contextlib.ExitStack() as stack:

        def count(owner: type, name: str, label: str) -> None:
            plain = getattr(owner, name)

            def counting(self: Any, *arguments: Any, **options: Any) -> Any:
                counts[label] += 1
                return plain(self, *arguments, **options)

            setattr(owner, name, counting)
            stack.callback(setattr, owner, name, plain)

        count(httpx.Client, "send", "prefect")
        for bucket in (FolderBucket, S3Bucket):
            for name in ("read", "create", "list", "delete"):
                count(bucket, name, f"bucket {name}")
        yield


def measure(folder: Path, parts: int, at_once: int, seconds: float, on_s3: bool = False) -> dict[str, Any]:
    from tests import workers
    from tests.bench.dispatch import s3_remote

    project(folder / "project")
    with contextlib.ExitStack() as stack:
        remote = stack.enter_context(s3_remote(folder / "s3")) if on_s3 else ""
        server = stack.enter_context(workers.prefect(folder / "prefect"))
        farm = stack.enter_context(workers.farm(folder, folder / "project", server.api, remote))
        before = dict(os.environ)
        stack.callback(os.environ.update, before)
        stack.callback(os.environ.clear)
        os.environ.update(farm.environment | {"PREFECT_API_URL": server.api})
        with farm.client() as client:
            client.request("PATCH", "/work_pools/{name}", None, {"name": POOL}, json={"concurrency_limit": parts})
        command = [sys.executable, __file__, "--play", "--atonce", str(at_once), "--seconds", str(seconds)]
        player = subprocess.Popen(command, cwd=folder / "project", stdin=subprocess.DEVNULL)
        stack.callback(player.wait)
        stack.callback(player.kill)
        farm.wait(lambda: farm.online(POOL) or None, "player", 60.0)
        return _measure(folder / "project", parts, psutil.Process(server.process.pid))  # type: ignore[union-attr]


def _measure(root: Path, parts: int, server: psutil.Process) -> dict[str, Any]:
    from flows.retrain import job
    from flows.stage.process import StageFailed
    from flows.workers.dispatch import Dispatcher

    here, counts, memory = psutil.Process(), Counter[str](), list[int]()
    with job.prepared(root) as ready:
        made = Dispatcher(ready)
        (stage,) = ready.stages
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(2.0):
                memory.append(here.memory_info().rss)

        sampling = threading.Thread(target=sample)
        sampling.start()
        began, cpu, theirs = time.perf_counter(), time.process_time(), _cpu(server)
        with counted(counts):
            with contextlib.suppress(StageFailed):  # the whole stage, which the player refuses
                made.run(stage, root / "log", lambda text, whole: None, threading.Event(), lambda reading: None)
            made.close()
        figures = {
            "parts": parts,
            "seconds": round(time.perf_counter() - began, 1),
            "cpu_ms": round(1000 * (time.process_time() - cpu) / parts, 2),
            "server_cpu_ms": round(1000 * (_cpu(server) - theirs) / parts, 1),
        }
        ended.set()
        sampling.join()
    rest = made.orders.store.list("stages/")
    megabytes = [value >> 20 for value in memory[:: max(1, len(memory) // SAMPLES)]]
    per_part = {name: round(count / parts, 3) for name, count in sorted(counts.items())}
    return figures | {"requests": per_part, "memory_mb": megabytes, "left": len(rest)}


def _cpu(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--atonce", type=int, default=512, help="parts that are worked on at once")
    parser.add_argument("--seconds", type=float, default=1.0, help="that a part takes")
    parser.add_argument("--s3", action="store_true", help="remote and ledger on Ceph's gateway")
    parser.add_argument("--play", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.play:
        play(asked.atonce, asked.seconds)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder), asked.parts, asked.atonce, asked.seconds, asked.s3)))


if __name__ == "__main__":
    main()
