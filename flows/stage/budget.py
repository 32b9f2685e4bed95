"""How much a run may cost, and when it has to stop: `remint retrain --budget '2h, 30m gpu'`.

    budget = parse("2h, 30m gpu")
    account = Account(budget, estimates, spending, on_gpus={"tokenizer"})
    account.refuses("tokenizer", working)    # "" if it may start, else why not
    account.too_much(working)                # those that have to end now

Machine seconds are those of all stages: two that work at once for an hour spend two hours. A limit is taken as reached
a little before it is: the stages that are ended then still write their checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from data.core.params import UserError, near
from flows.stage.spending import Spending, Usage, duration

KINDS = {"machine": "seconds", "cpu": "cpu_seconds", "gpu": "gpu_seconds"}  # as people say it: as Usage has it
WORDS = {"machine": "of machines", "cpu": "of CPU time", "gpu": "of GPUs"}
UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
GRAMMAR = "write '2h', '1h30m', '90s', '30m gpu' or '2h, 30m gpu, 4h cpu'"
MARGIN_SECONDS, MARGIN_SHARE = 10.0, 0.05  # before a limit, the smaller of both: time for each stage's checkpoint
LOOK_SECONDS = 1.0  # between two looks at what is spent, if the limit is not very near


@dataclass(frozen=True)
class Budget:
    """Seconds by kind; no limit on a kind that is not in it."""

    limits: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return " and ".join(f"{duration(limit)} {WORDS[kind]}" for kind, limit in self.limits.items())


def parse(text: str) -> Budget:
    """A budget as a person writes it; UserError names what is wrong."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*((?:\d+(?:\.\d+)?[dhms])+)(?:\s+(\w+))?\s*", part)
        if found is None:
            raise UserError(f"--budget '{text}': '{part.strip()}' is no amount of time; {GRAMMAR}")
        kind = found[2] or "machine"
        if kind not in KINDS:
            raise UserError(f"--budget '{text}': of what is '{kind}'{near(kind, list(KINDS))}; {GRAMMAR}")
        if kind in limits:
            raise UserError(f"--budget '{text}' limits {WORDS[kind].removeprefix('of ')} twice; {GRAMMAR}")
        numbers = re.findall(r"(\d+(?:\.\d+)?)([dhms])", found[1])
        limits[kind] = sum(float(number) * UNITS[unit] for number, unit in numbers)
        if limits[kind] <= 0:
            raise UserError(f"--budget '{text}': with {part.strip()} nothing can run; {GRAMMAR}")
    return Budget(limits)


def spent(budget: Budget, used: Usage) -> str:
    """ "1 h 52 min of 2 h of machines and 28 min of 30 min of GPUs"."""
    parts = [
        f"{duration(_seconds(used, kind))} of {duration(limit)} {WORDS[kind]}" for kind, limit in budget.limits.items()
    ]
    return " and ".join(parts)


@dataclass(frozen=True)
class Account:
    """A budget against what a run spends."""

    budget: Budget
    estimates: Mapping[str, Usage]  # by stage, what it is likely to cost; those never seen are left out
    spending: Spending
    on_gpus: Collection[str] = ()  # stages that hold GPUs: only these a limit of GPU time stops

    def refuses(self, stage: str, working: Collection[str]) -> str:
        """Why a stage may not start beside those that work, "" if it may; they will cost what was estimated."""
        for kind, limit in self.budget.limits.items():
            if kind == "gpu" and stage not in self.on_gpus:
                continue
            spent = _seconds(self.spending.all(), kind)
            if spent >= _end(limit, len(working)):
                return f"{duration(spent)} of {duration(limit)} {WORDS[kind]} are spent"
            ahead = sum(max(0.0, self._estimate(one, kind) - self._spent(one, kind)) for one in working)
            wanted = self._estimate(stage, kind)
            if spent + ahead + wanted > limit:
                taken = duration(spent + ahead)
                return f"it is likely to take {duration(wanted)}, after {taken} of {duration(limit)} {WORDS[kind]}"
        return ""

    def too_much(self, working: Collection[str]) -> list[str]:
        """Which of the stages that work have to end now."""
        spent = self.spending.all() if self.budget.limits else Usage()
        limits = self.budget.limits.items()
        over = {kind for kind, limit in limits if _seconds(spent, kind) >= _end(limit, len(working))}
        return [one for one in working if over - ({"gpu"} if one not in self.on_gpus else set())]

    @property
    def pace(self) -> float | None:
        """Seconds between two looks at what works; None without a limit that it could reach."""
        margins = [limit - _end(limit, 1) for limit in self.budget.limits.values()]
        return min(LOOK_SECONDS, *margins) if margins else None

    def _estimate(self, stage: str, kind: str) -> float:
        return _seconds(self.estimates.get(stage), kind)

    def _spent(self, stage: str, kind: str) -> float:
        return _seconds(self.spending.of(stage), kind)


def _seconds(usage: Usage | None, kind: str) -> float:
    return float(getattr(usage, KINDS[kind])) if usage else 0.0


def _end(limit: float, working: int) -> float:
    """Where a limit counts as reached while so many stages spend at once."""
    return limit - min(MARGIN_SECONDS * max(1, working), MARGIN_SHARE * limit)
