"""What it costs to run stages on workers, beside their own work, and how long a run takes that has nothing to do.

    python tests/bench/dispatch.py               # five minutes on two idle cores
    python tests/bench/dispatch.py --runs 50     # with fewer earlier runs in the run cache
    python tests/bench/dispatch.py --s3          # remote, ledger and checkpoints on a real S3 server

`stage` is the time from the start of a stage to its accepted result, without what `dvc repro` took on the worker:
key, run cache, ledger, Prefect, worktree, fetching, pushing, accepting. `nothing` is the whole process `remint retrain`
for a run whose results are all there; `nothing_after_many` the same with ten times the files in the outputs and a
thousand earlier runs in the run cache of the remote. Seconds; medians.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from flows.storage import bucket
from tests import released, s3, workers

STAGES, FILES = 6, 20


def project(root: Path, files: int) -> None:
    """A line of stages that copy folders: nothing but orchestration takes time."""
    from dvc.repo import Repo

    root.mkdir()
    released.git(root, "init", "-q")
    Repo.init(str(root)).close()
    make = f"mkdir -p artifacts/s0 && for i in $(seq {files}); do echo $i > artifacts/s0/$i; done"
    stages = {"s0": {"cmd": make, "deps": ["code"], "params": ["seed"], "outs": ["artifacts/s0"]}}
    for number in range(1, STAGES):
        before, out = f"artifacts/s{number - 1}", f"artifacts/s{number}"
        copy = f"cp -r {before} {out} && echo {number} > {out}/last"
        stages[f"s{number}"] = {"cmd": copy, "deps": [before], "params": ["seed"], "outs": [out]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (root / "params.yaml").write_text("seed: 1\n")
    (root / "code").write_text("x\n")
    (root / ".gitignore").write_text("/.remint/\n/artifacts/\n")
    (root / "mlflow").mkdir()
    (root / "mlflow/promotion.yaml").write_text("{}\n")
    released.git(root, "add", "-A")
    released.git(root, "commit", "-q", "-m", "A line of stages")


def remint(root: Path, *words: str, **variables: str) -> float:
    """Seconds of `remint retrain`."""
    command = [sys.executable, "-c", "from flows.cli import main; main()", "retrain", *words]
    began = time.perf_counter()
    environment = workers.foreign(os.environ) | variables
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - began


def overheads(desk: Path) -> list[float]:
    """For each stage of the newest run what it took beside its own work."""
    newest = max((desk / ".remint/runs").iterdir())
    results = json.loads((newest / "run.json").read_text())["results"]
    found = []
    for result in results:
        took = re.search(r"succeeded after ([\d.]+) s", (newest / "logs" / f"{result['name']}.log").read_text())
        assert took is not None, result
        found.append(result["seconds"] - float(took[1]))
    return found


def remember(remote: str, runs: int) -> None:
    """Earlier runs in the run cache of the remote, each with all its stages."""
    place = bucket.at(remote)

    def write(number: int) -> None:
        key = hashlib.sha256(f"key {number}".encode()).hexdigest()
        place.replace(f"runs/{key[:2]}/{key}/{hashlib.sha256(key.encode()).hexdigest()}", b"cmd: x\n")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(runs * STAGES)))


@contextlib.contextmanager
def s3_remote(folder: Path) -> Iterator[str]:
    """A prefix of a new bucket on a server of its own, which this process's environment names."""
    import boto3

    with s3.server(folder) as environment:
        os.environ.update(environment)
        boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket="bench")
        yield "s3://bench/team"


def measure(folder: Path, runs: int, rounds: int, on_s3: bool) -> dict[str, float]:
    project(folder / "project", FILES)
    with contextlib.ExitStack() as stack:
        remote = stack.enter_context(s3_remote(folder / "s3")) if on_s3 else ""
        server = stack.enter_context(workers.prefect(folder / "prefect"))
        farm = stack.enter_context(workers.farm(folder, folder / "project", server.api, remote))
        farm.start("cpu")
        desk = farm.clone("desk")
        beside: list[float] = []
        for seed in range(rounds):
            remint(desk, "--set", f"seed={seed}", **farm.environment)
            beside += overheads(desk)[1 if seed == 0 else 0 :]  # the worker's first stage warms it
        last = ("--set", f"seed={rounds - 1}")
        nothing = median(remint(desk, *last, **farm.environment) for _ in range(rounds))
        text = (desk / "dvc.yaml").read_text()
        (desk / "dvc.yaml").write_text(text.replace(f"seq {FILES}", f"seq {10 * FILES}"))
        released.git(desk, "commit", "-q", "-a", "-m", "Ten times the files")
        released.git(desk, "push", "-q", "origin", "HEAD")
        remint(desk, *last, **farm.environment)
        remember(farm.environment["REMINT_REMOTE"], runs)
        many = median(remint(desk, *last, **farm.environment) for _ in range(rounds))
    figures = {"stage": median(beside), "stage_most": max(beside), "nothing": nothing, "nothing_after_many": many}
    return {name: round(value, 2) for name, value in figures.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000, help="earlier runs in the run cache")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--s3", action="store_true", help="remote, ledger and checkpoints on Ceph's gateway")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(
            json.dumps(
                measure(Path(folder), asked.runs, asked.rounds, asked.s3) | {"load": round(os.getloadavg()[0], 1)}
            )
        )


if __name__ == "__main__":
    main()
