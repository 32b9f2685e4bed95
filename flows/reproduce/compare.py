"""Compare what was made again with what dvc.lock records, and judge: pure functions over values.

identical              every output has the digest that the commit's dvc.lock records
same within tolerance  some bytes differ, but from the same code, parameters and sources came weights and metrics
                       that all lie within the tolerance
different              everything else
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from flows.pipeline import plan
from flows.pipeline.graph import Stage
from flows.pipeline.plan import Recorded
from flows.reproduce.tensors import TensorDifference

IDENTICAL: Verdict = "identical"
WITHIN: Verdict = "same within tolerance"
DIFFERENT: Verdict = "different"
FAILED: Verdict = "failed"
Verdict = Literal["identical", "same within tolerance", "different", "failed"]
WORST = (FAILED, DIFFERENT, WITHIN, IDENTICAL)


@dataclass(frozen=True)
class Tolerance:
    """How far apart a reproduction may be and still count as the same."""

    tensors: float = 1e-3  # norm of the difference over norm of the original, for each tensor
    metrics: float = 1e-2  # difference over the larger of the two values, for each metric

    def __str__(self) -> str:
        return f"each tensor within {self.tensors:g} of its norm, each metric within {self.metrics:g} of its value"


@dataclass(frozen=True)
class Weights:
    """The tensors of one model file that differ; `tensors` is None where the original's bytes could not be reached."""

    path: str
    tensors: tuple[TensorDifference, ...] | None


@dataclass(frozen=True)
class StageProof:
    """One stage, made again. `inputs` says in what its inputs differ from the original's: () if in nothing."""

    stage: str
    then: Mapping[str, str]  # digests of the outs
    now: Mapping[str, str]
    inputs: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()  # what of it differs in the commit itself: parameters, command, sources
    weights: tuple[Weights, ...] = ()
    metrics: Mapping[str, tuple[float, float]] | None = field(default_factory=dict)  # None: could not be reached
    seconds: float = 0.0
    host: str = ""  # of the worker that ran it, "" for this machine

    @property
    def identical(self) -> bool:
        return dict(self.then) == dict(self.now)

    @property
    def outs(self) -> tuple[str, ...]:
        """The outputs that differ."""
        return tuple(out for out in {**self.then, **self.now} if self.then.get(out) != self.now.get(out))


def stage_proof(stage: Stage, then: Recorded, now: Recorded, altered: Sequence[str] = ()) -> StageProof:
    """What the two records of a stage say; weights and metrics are looked at only where the digests differ."""
    inputs = tuple(plan.differences(stage, then, now.params, now.deps))
    return StageProof(stage.name, then.outs, now.outs, inputs, tuple(altered))


def verdict(proofs: Sequence[StageProof], tolerance: Tolerance) -> Verdict:
    """The verdict on a model: `proofs` are its stage and all before it."""
    differing = [proof for proof in proofs if not proof.identical]
    if not differing:
        return IDENTICAL
    if any(proof.altered for proof in proofs):
        return DIFFERENT
    return WITHIN if all(within(proof, tolerance) for proof in differing) else DIFFERENT


def within(proof: StageProof, tolerance: Tolerance) -> bool:
    """Whether all weights and metrics of a stage are known and lie within the tolerance; the rest is not judged."""
    if proof.metrics is None or any(weights.tensors is None for weights in proof.weights):
        return False
    tensors = [tensor for weights in proof.weights for tensor in weights.tensors or ()]
    near_tensors = all(tensor.relative <= tolerance.tensors for tensor in tensors)
    return near_tensors and all(distance(*pair) <= tolerance.metrics for pair in proof.metrics.values())


def distance(then: float, now: float) -> float:
    """The difference of a metric over the larger of its two values."""
    if then == now or (math.isnan(then) and math.isnan(now)):
        return 0.0
    if not (math.isfinite(then) and math.isfinite(now)):
        return math.inf
    return abs(now - then) / max(abs(then), abs(now))


def first(proofs: Sequence[StageProof]) -> StageProof | None:
    """The first stage that differs; `proofs` in topological order. Those behind it may differ because of it."""
    return next((proof for proof in proofs if not proof.identical), None)


def worst(verdicts: Collection[Verdict]) -> Verdict:
    return next((one for one in WORST if one in verdicts), IDENTICAL)
