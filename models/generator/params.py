"""Parameters of the generators' evaluation; those of a kind's training are its own (`models.generator.kinds`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from data.core.params import Range, Seed
from models.core.learning import Threads


@dataclass(frozen=True)
class EvaluateParams:
    """Section `evaluate.maskgit` (or another kind's)."""

    seed: Seed
    threads: Threads
    samples_per_class: Annotated[int, Range(4, 10**6, why=": four of each class are shown beside their nearest")]
    probe_steps: Annotated[int, Range(1, 10**7)]
    probe_batch: Annotated[int, Range(2, 65_536)]
