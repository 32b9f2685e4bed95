"""What the stages of a run cost, while it goes: every attempt, here or on a worker, that of a failed one too.

spending = Spending()
spending.attempt("tokenizer", meter.usage)   # asked now and then while the attempt lives, and after its end
spending.of("tokenizer"), spending.all()
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Usage:
    """What an attempt at a stage cost."""

    seconds: float = 0.0  # of a machine, with fetching and pushing
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0  # during which GPUs were held, times their number
    bytes_in: int = 0
    bytes_out: int = 0
    peak_memory: int = 0  # bytes, of the stage's largest process


Reading = Callable[[], Usage]  # what an attempt has cost so far; from any thread


class Spending:
    """The account of one run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._attempts: dict[str, list[Reading]] = defaultdict(list)

    def attempt(self, stage: str, reading: Reading) -> None:
        """Note that an attempt at a stage begins."""
        with self._lock:
            self._attempts[stage].append(reading)

    def of(self, stage: str) -> Usage | None:
        """What all attempts at a stage have cost so far, None if there was none."""
        with self._lock:
            readings = list(self._attempts.get(stage, ()))
        return total(reading() for reading in readings) if readings else None

    def all(self) -> Usage:
        """What everything has cost so far."""
        with self._lock:
            readings = [reading for attempts in self._attempts.values() for reading in attempts]
        return total(reading() for reading in readings)


def total(usages: Iterable[Usage]) -> Usage:
    """Several usages as one: sums, and the largest of the peaks."""
    every = list(usages)
    return Usage(
        seconds=round(sum(one.seconds for one in every), 3),
        cpu_seconds=round(sum(one.cpu_seconds for one in every), 3),
        gpu_seconds=round(sum(one.gpu_seconds for one in every), 3),
        bytes_in=sum(one.bytes_in for one in every),
        bytes_out=sum(one.bytes_out for one in every),
        peak_memory=max((one.peak_memory for one in every), default=0),
    )


def duration(seconds: float) -> str:
    """ "4.5 s", "12 min 31 s", "2 h", "3 d 4 h": two units at most, without those that are 0."""
    if seconds < 100:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    for large, small, size, step in (("min", "s", 60, 1), ("h", "min", 3600, 60), ("d", "h", 86400, 3600)):
        count = round(seconds / step) * step
        if count < 100 * size or large == "d":
            rest = count % size // step
            return f"{count // size} {large}" + (f" {rest:02d} {small}" if rest else "")
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class Estimate:
    """What a stage is likely to cost, by what it did in the run that is named.

    steps: then and now, where they differ and its time was taken to go with them.
    """

    usage: Usage
    run: str
    steps: tuple[int, int] | None = None
