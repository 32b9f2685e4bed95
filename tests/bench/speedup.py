"""What a second worker machine saves: the real graph on one machine of one core, and on two.

    python tests/bench/speedup.py                    # the tiny recipe
    python tests/bench/speedup.py --recipe default   # about 45 minutes on two idle cores

A machine is a clone with one worker for each of the graph's pools, held on one core. Who starts the run, Prefect's
server and git's origin stand beside them and may use both cores, also while only one machine works: that favours the
one. `parallel` is the time in which any two stages, or two parts of one, could be under way at once: all of the run's
stages but `validate` and `report`. Seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests import released, workers

ROOT = Path(__file__).parents[2]
ALONE = ("validate", "report")  # nothing else can be under way beside these
LINE = re.compile(r"^(\d\d:\d\d:\d\d) ([\w@-]+): (started|done)\b", re.M)


def run(folder: Path, machines: int, recipe: list[str]) -> dict[str, object]:
    """One run on so many machines; its time, the parallel part's, and its dvc.lock."""
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    subprocess.run(["git", "-C", str(source), "remote", "remove", "origin"], check=True)
    with workers.prefect(folder / "prefect") as server, workers.farm(folder, source, server.api) as farm:
        farm.environment |= {"REMINT_VANISHED": "60"}
        cores = sorted(os.sched_getaffinity(0))
        for machine in range(machines):
            os.sched_setaffinity(0, {cores[machine]})
            farm.start("cpu", f"cpu-{machine}")
            farm.start("gpu", f"gpu-{machine}")
        os.sched_setaffinity(0, set(cores))
        desk = farm.clone("desk")
        command = [sys.executable, "-c", "from flows.cli import main; main()", "retrain", "--json", *recipe]
        environment = workers.foreign(os.environ) | farm.environment
        began = time.perf_counter()
        with (folder / "progress").open("w") as progress:
            done = subprocess.run(
                command, cwd=desk, env=environment, stdout=subprocess.PIPE, stderr=progress, text=True, check=False
            )
        took = time.perf_counter() - began
        said = (folder / "progress").read_text()
        if done.returncode:
            raise SystemExit(said)
        lock = released.git(desk, "show", f"{json.loads(done.stdout)['tag']}:dvc.lock")
        return {"seconds": round(took, 1), "parallel": round(parallel(said), 1), "lock": lock, "said": said}


def parallel(said: str) -> float:
    """Seconds from the first stage's start to the last one's end, without those that run alone."""
    times: dict[str, dict[str, datetime]] = {}
    last = None
    for stamp, stage, what in LINE.findall(said):
        now = datetime.strptime(stamp, "%H:%M:%S")
        last = now + timedelta(days=1) if last and now < last - timedelta(hours=12) else now
        times.setdefault(stage, {})[what] = last
    whole = max(t["done"] for t in times.values()) - min(t["started"] for t in times.values())
    alone = sum((times[name]["done"] - times[name]["started"] for name in ALONE if name in times), timedelta())
    return (whole - alone).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--recipe", default="tiny", help="one of models/recipes, or 'default'")
    parser.add_argument("--machines", type=int, nargs="+", default=[2, 1])
    asked = parser.parse_args()
    recipe = [] if asked.recipe == "default" else ["--recipe", asked.recipe]
    found = {}
    for machines in asked.machines:
        with tempfile.TemporaryDirectory() as folder:
            found[machines] = run(Path(folder), machines, recipe)
        print(found[machines]["said"], file=sys.stderr, flush=True)
    figures: dict[str, object] = {str(n): {k: made[k] for k in ("seconds", "parallel")} for n, made in found.items()}
    if {1, 2} <= found.keys():
        for name in ("seconds", "parallel"):
            figures[f"{name}_ratio"] = round(found[2][name] / found[1][name], 3)  # type: ignore[operator]
        figures["same_lock"] = found[1]["lock"] == found[2]["lock"]
    if not recipe:
        committed = released.git(ROOT, "show", "HEAD:dvc.lock")
        figures["committed_lock"] = all(made["lock"] == committed for made in found.values())
    print(json.dumps(figures | {"load": round(os.getloadavg()[0], 1)}))


if __name__ == "__main__":
    main()
