"""How long models take for one picture, of candidate and production in turns in one process.

    python -m flows.release.gates.speed < pairs.json

A machine is never twice equally fast, so only the ratio of two times taken in turns says something about a model.
Times are medians of processor time, on one thread: what it would take if the machine did nothing else. This runs beside
the gates and not in a stage: a time is no output that could be made again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from flows.release.gates.compare import Speed
from flows.stage import confined
from models.tracking.training_run import first_line

WARM_UP, ROUNDS, SECONDS = 3, 200, 1.0  # per pair: at most so many rounds or seconds, whichever ends first
LEAST_ROUNDS = 7
LIMIT = 600.0  # seconds for all pairs, loading included
MODULES = ("flows.release.gates.speed", "flows.gates.speed")  # this one, and where earlier commits have it


@dataclass(frozen=True)
class Pair:
    """Two models of one name; `beside` is the tokenizer that a generator needs, and production may be missing."""

    model: str
    serving: str  # "tokenizer", "generator", "depth": what is one picture's work
    candidate: str  # folder
    production: str = ""
    beside: str = ""
    production_beside: str = ""


def measure(workspace: Path, pairs: Sequence[Pair], environment: Mapping[str, str]) -> dict[str, Speed]:
    """Time every pair with the workspace's code, in a process of its own; what fails is said in the value."""
    if not pairs:
        return {}
    there = [name for name in MODULES if (workspace / f"{name.replace('.', '/')}.py").exists()] or MODULES
    try:
        done = subprocess.run(
            confined.command([sys.executable, "-m", there[0]]),
            cwd=workspace,
            env=confined.variables(environment),
            input=json.dumps([asdict(pair) for pair in pairs]),
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        found = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}
        problem = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1] if not found else ""
    except subprocess.TimeoutExpired:
        found, problem = {}, f"measuring took longer than {LIMIT:g} s"
    return {pair.model: Speed(**found.get(pair.model, {"problem": f"not measured: {problem}"})) for pair in pairs}


def main() -> None:
    """Reads pairs from standard input and prints {model: {candidate, production, problem}}."""
    import torch

    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for values in json.load(sys.stdin):
        pair = Pair(**values)
        try:
            with torch.no_grad():
                found[pair.model] = _times(pair)
        except Exception as error:  # one model that cannot be loaded must not hide the others' times
            found[pair.model] = {"problem": f"not measured: {first_line(error)}"}
    print(json.dumps(found))


def _times(pair: Pair) -> dict[str, Any]:
    works = {"candidate": _work(pair.serving, pair.candidate, pair.beside)}
    if pair.production:
        works["production"] = _work(pair.serving, pair.production, pair.production_beside)
    for _ in range(WARM_UP):
        for work in works.values():
            work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    until = time.perf_counter() + SECONDS
    for rounds in range(ROUNDS):
        if rounds >= LEAST_ROUNDS and time.perf_counter() > until:
            break
        for name in works if rounds % 2 else reversed(works):  # neither always goes first
            began = time.process_time()
            works[name]()
            taken[name].append(1000 * (time.process_time() - began))
    return {name: median(values) for name, values in taken.items()}


def _work(serving: str, folder: str, beside: str) -> Callable[[], Any]:
    """One picture through a model: both ways through a tokenizer, drawn by a generator, or its depth."""
    import numpy as np
    import torch

    from models.registry import load

    net = load(Path(folder))
    if serving == "generator":
        from models.generator.load import generate

        tokenizer, label = load(Path(beside)), torch.zeros(1, dtype=torch.int64)
        return lambda: generate(net, tokenizer, label, 0)
    config = json.loads((Path(folder) / "config.json").read_text())
    if serving == "tokenizer":
        size = config["titok"]["image_size"]
        picture = torch.full((1, 3, size, size), 0.5)
        return lambda: net.decode(net.encode(picture))
    from models.depth.net import predict

    size = config["backbone_config"]["image_size"]
    grey = np.full((1, size, size, 3), 128, np.uint8)
    return lambda: predict(net, grey)


if __name__ == "__main__":
    main()
