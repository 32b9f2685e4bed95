"""How fast photographs are taken in that arrive in batches, and what DVC uploads after each batch.

    python tests/bench/ingest.py                                 10,000 photographs in 20 batches: half an hour
    python tests/bench/ingest.py --count 400 --batches 4         a minute

Prints a line per batch and ends with a summary as JSON. `taken_in` is the watch: read, digest, decode, measure, ask the
depth student in production, keep, record. `made` is the stage `photos`: cut tiles, write shards. Both are photographs
per second of processor time, so of one core. `doubles` counts photographs that stand twice in the list, or not at all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import arriving

SIZE = (640, 480)


@dataclass(frozen=True)
class Measured:
    """One batch."""

    arrived: int
    taken_in: float  # photographs per second of processor time
    made: float
    memory: int  # MB, the most that this process ever had
    shards: int  # in the pool
    uploaded: int  # objects that `dvc push` sent
    uploaded_shards: int
    uploaded_mb: float


def measure(
    root: Path, count: int, batches: int, size: tuple[int, int], per_shard: int, told: Callable[[str], None]
) -> dict[str, Any]:
    """Let photographs arrive in a new project at `root`; returns every batch and a summary."""
    from flows.arrivals import batches as log
    from flows.arrivals import watch
    from flows.arrivals.thresholds import Thresholds

    inbox = root / "inbox"
    settings = arriving.project(root / "project", str(inbox))
    arriving.release(settings)
    _graph(settings.root, per_shard, root / "remote")
    done = []
    for batch in range(batches):
        numbers = range(batch * count // batches, (batch + 1) * count // batches)
        arriving.deliver(str(inbox), {f"{number}.jpg": arriving.photograph(number, size) for number in numbers})
        began = time.process_time()
        seen = watch.look(settings, Thresholds())
        taken = time.process_time() - began
        every = log.open(settings)
        (settings.root / "data" / "incoming.arrivals").write_text(every.text(every.read()))
        cut = _repro(settings.root)
        objects, shards, megabytes = _push(settings.root, root / "remote")
        arrived = seen.taken.arrived
        one = Measured(
            arrived,
            round(arrived / taken, 1),
            round(arrived / cut, 1),
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            len(list((settings.root / "artifacts" / "photos").glob("*.tar"))),
            objects,
            shards,
            round(megabytes, 2),
        )
        told(f"batch {batch + 1}: {one}")
        done.append(one)
    return _summary(settings, count, done)


def _summary(settings: Any, count: int, done: list[Measured]) -> dict[str, Any]:
    from flows.arrivals import batches as log

    listed = [one.sha256 for batch in log.open(settings).read() if batch.arrived for one in batch.photographs]
    kept = sum(1 for path in Path(settings.arrived, "photographs").rglob("*") if path.is_file())
    total = sum(one.arrived for one in done)
    return {
        "photographs": count,
        "taken_in_per_core": round(total / sum(one.arrived / one.taken_in for one in done), 1),
        "made_per_core": round(total / sum(one.arrived / one.made for one in done), 1),
        "doubles": abs(count - len(set(listed))) + len(listed) - len(set(listed)),
        "kept": kept,
        "memory_first_mb": done[0].memory,
        "memory_last_mb": done[-1].memory,
        "shards": done[-1].shards,
        "shards_uploaded": sum(one.uploaded_shards for one in done),
        "batches": [asdict(one) for one in done],
    }


def _graph(root: Path, per_shard: int, remote: Path) -> None:
    """The stage `photos` on the list of arrivals, and a DVC remote."""
    from dvc.repo import Repo

    values = yaml.safe_load((root / "params.yaml").read_text())
    values["photos"] |= {"per_photo": 16}
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    command = f"python -c 'from tests.bench.ingest import collect; collect({per_shard})'"
    stage = {"cmd": command, "deps": ["data/incoming.arrivals"], "outs": [{"artifacts/photos": {"persist": True}}]}
    graph = yaml.safe_load((root / "dvc.yaml").read_text())
    (root / "dvc.yaml").write_text(yaml.safe_dump(graph | {"stages": {"photos": stage}}))
    shutil.rmtree(root / "artifacts" / "photos")
    with Repo(str(root)) as repo, repo.config.edit() as config:
        config["remote"] = {"here": {"url": str(remote)}}
        config["core"] = {**config.get("core", {}), "remote": "here"}


def collect(per_shard: int) -> None:
    """The stage, with shards of another size."""
    from data.core import params
    from data.photos import append, collect
    from data.photos.params import Photos

    append.PER_SHARD = per_shard
    collect.collect("data/incoming.arrivals", Path("artifacts/photos"), params.load(Photos, "photos"))


def _repro(root: Path) -> float:
    """Run the stage; returns its seconds of processor time."""
    import subprocess

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    here = str(Path(__file__).parents[2])
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=root, env={**os.environ, "PYTHONPATH": here}, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _push(root: Path, remote: Path) -> tuple[int, int, float]:
    """`dvc push`; returns how many objects it sent, how many of them are shards, and their megabytes."""
    from dvc.repo import Repo

    before = set(remote.rglob("*"))
    with Repo(str(root)) as repo:
        repo.push()
    new = [path for path in remote.rglob("*") if path.is_file() and path not in before]
    shards = [path for path in new if path.stat().st_size > 512 and path.open("rb").read(262)[257:] == b"ustar"]
    return len(new), len(shards), sum(path.stat().st_size for path in new) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--per-shard", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="remint-ingest-") as folder:
        found = measure(Path(folder), arguments.count, arguments.batches, SIZE, arguments.per_shard, print)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
