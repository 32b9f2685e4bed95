"""Calibrate the committed promotion policy: how often it lets an equal release pass, and how often a better one.

    python tests/bench/gates.py                    # 1,000 releases of each kind; about four minutes on one core
    python tests/bench/gates.py --resamples 2000   # five times as fast, and hardly rougher
    python tests/bench/gates.py --json

Every simulated release goes through `flows.release.gates.judge.decide` with the gates of mlflow/promotion.yaml. On
every held-out sample the candidate differs from production by a draw from a pool of paired differences that is shifted
to a known mean: 0 for an equal model, the policy's margin for a better one. The pools:

    psnr, ssim, delta1   differences between the models of two default runs that differ by their seed alone, on the
                         same held-out scenes (paired_differences.json, made by differences.py): standard deviation
                         0.90 dB, 0.024 and 0.031, kurtosis 3.9, 4.3 and 11
    class_agreement      agreed or not, 75 % each and independent: two generators draw other pictures from one seed.
                         The two runs both reach 100 %, where nothing can be told; this is what a harder set would show

Expected: equal at most 5 %, better by the margin (in one metric, all others equal) at least 80 %.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import yaml

from data.scenes.grammar import NAMES
from flows.catalogue.registered import Registered
from flows.pipeline.families import Model, models_of
from flows.release.gates import compare
from flows.release.gates.compare import InProduction, Measured, Samples
from flows.release.gates.judge import decide
from flows.release.gates.policy import Gate, gates_of

ROOT = Path(__file__).parents[2]
POOLS = Path(__file__).with_name("paired_differences.json")
PER_SCENE = ("psnr", "ssim", "delta1")
AGREEMENT = 75.0  # %


@dataclass(frozen=True)
class Line:
    """How often one kind of release passed."""

    family: str
    kind: str
    passed: float  # share
    draws: int
    seconds: float  # for each


def calibrate(root: Path, draws: int, resamples: int, seed: int = 0) -> Iterator[Line]:
    """For every family: an equal release, and one that is better by the margin in one metric."""
    with _resampled(resamples):
        yield from _lines(root, draws, seed)


@contextmanager
def _resampled(count: int) -> Iterator[None]:
    """Let each bootstrap draw so many resamples."""
    before = compare.bootstrap_means
    compare.bootstrap_means = partial(before, draws=count)
    try:
        yield
    finally:
        compare.bootstrap_means = before


def _lines(root: Path, draws: int, seed: int) -> Iterator[Line]:
    gates = gates_of(root)
    models, counts, random = models_of(root), sizes(root), np.random.default_rng(seed)
    for family in dict.fromkeys(model.family for model in models):
        members = [model for model in models if model.family == family]
        kinds: dict[str, dict[tuple[str, str], float]] = {"equal": {}}
        for model in members:
            for metric in _tested(gates[model.name]):
                kinds[f"better {model.name} {metric}"] = {(model.name, metric): gates[model.name].margins[metric]}
        for kind, effects in kinds.items():
            began = time.perf_counter()
            passed = sum(_passes(members, gates, effects, counts, random) for _ in range(draws))
            yield Line(family, kind, passed / draws, draws, (time.perf_counter() - began) / draws)


def sizes(root: Path) -> dict[str, int]:
    """Held-out samples per metric, as params.yaml has them."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    held_out = round(params["scenes"]["count"] * params["scenes"]["held_out_share"])
    return {
        **dict.fromkeys(PER_SCENE, held_out),
        "class_agreement": len(NAMES) * params["evaluate"]["maskgit"]["samples_per_class"],
    }


def _tested(gate: Gate) -> list[str]:
    return [name for name in gate.margins if name in (*PER_SCENE, "class_agreement")]


def _passes(
    members: list[Model],
    gates: Mapping[str, Gate],
    effects: Mapping[tuple[str, str], float],
    sizes: Mapping[str, int],
    random: np.random.Generator,
) -> bool:
    """Whether one simulated release passes: only what is compared sample by sample is asked."""
    production, measured, candidates = {}, {}, []
    asked = {
        model.name: Gate(margins={m: gates[model.name].margins[m] for m in _tested(gates[model.name])})
        for model in members
    }
    for model in members:
        pairs = {
            name: _pair(name, effects.get((model.name, name), 0.0), sizes[name], random)
            for name in asked[model.name].margins
        }
        keys = tuple(map(str, range(max((len(pair[0]) for pair in pairs.values()), default=0))))
        production[model.name] = InProduction(1, "old", {}, {}, Samples(keys, {n: p[0] for n, p in pairs.items()}))
        measured[model.name] = Measured(Samples(keys, {n: p[1] for n, p in pairs.items()}))
        candidates.append(Registered(model, 2, "new", {}, {}, ""))
    return all(one.promoted for one in decide(candidates, asked, production, {}, measured))


def _pair(name: str, effect: float, n: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(production, candidate) on n samples, the candidate higher, which is better, by `effect` on average."""
    if name == "class_agreement":
        theirs, ours = (100.0 * (random.random(n) < share / 100) for share in (AGREEMENT, AGREEMENT + effect))
        return theirs, ours
    theirs = np.zeros(n)  # what both have in common cancels out
    return theirs, theirs + effect + random.choice(pool(name), n)


@cache
def pool(name: str) -> np.ndarray:
    """Paired differences of one metric, with mean 0."""
    values = np.array(json.loads(POOLS.read_text())[name])
    return values - values.mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=compare.DRAWS, help="of each bootstrap")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    lines = []
    for line in calibrate(ROOT, args.draws, args.resamples):
        lines.append(line)
        if not args.json:
            print(f"{line.family:8} {line.kind:36} passed {100 * line.passed:5.1f} %  of {line.draws}", flush=True)
    if args.json:
        print(json.dumps([asdict(line) for line in lines], indent=1))


if __name__ == "__main__":
    main()
