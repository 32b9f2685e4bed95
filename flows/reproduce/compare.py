"""The comparison of what was made again with what dvc.lock records, the verdict, and which bytes can be expected where.

identical              every output has the digest that the commit's dvc.lock records
same within tolerance  some bytes differ, but from the same code, parameters and sources came weights and metrics
                       that all lie within the tolerance
different              everything else

A stage whose parameters name `portable` reckons with what libraries choose by the processor; no other stage does
(`tests/unit/test_data_on_any_processor.py`). In a graph from before there was `portable`, all do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flows.pipeline import environment, plan
from flows.pipeline.environment import Difference, Environment
from flows.pipeline.graph import Stage
from flows.pipeline.plan import Recorded

if TYPE_CHECKING:
    from torch import Tensor

IDENTICAL: Verdict = "identical"
WITHIN: Verdict = "same within tolerance"
DIFFERENT: Verdict = "different"
FAILED: Verdict = "failed"
Verdict = Literal["identical", "same within tolerance", "different", "failed"]
WORST = (FAILED, DIFFERENT, WITHIN, IDENTICAL)
Environments = Mapping[str, Environment]  # by stage


@dataclass(frozen=True)
class Tolerance:
    """How far apart a reproduction may be and still count as the same."""

    tensors: float = 1e-3  # norm of the difference over norm of the original, for each tensor
    metrics: float = 1e-2  # difference over the larger of the two values, for each metric

    def __str__(self) -> str:
        return f"each tensor within {self.tensors:g} of its norm, each metric within {self.metrics:g} of its value"


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that is not the same in both files."""

    name: str
    shape: tuple[int, ...]
    largest: float  # of the absolute differences
    relative: float  # norm of the difference over norm of the original; inf where they cannot be compared
    share: float  # of the elements that differ
    problem: str = ""  # "only in the original", "only in the new one", "was (4, 8)", "was float32"


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


def tensors_apart(original: Path, made: Path) -> list[TensorDifference]:
    """The tensors that differ, the farthest first; [] if all are equal, bit by bit."""
    from safetensors.torch import load_file

    then, now = load_file(original), load_file(made)
    found = []
    for name in sorted({*then, *now}):
        one, other = then.get(name), now.get(name)
        if one is None:
            found.append(_incomparable(name, now[name].shape, "only in the new one"))
        elif other is None:
            found.append(_incomparable(name, one.shape, "only in the original"))
        elif one.shape != other.shape:
            found.append(_incomparable(name, other.shape, f"was {tuple(one.shape)}"))
        elif one.dtype != other.dtype:
            found.append(_incomparable(name, other.shape, f"was {str(one.dtype).removeprefix('torch.')}"))
        elif (difference := _tensor(name, one, other)) is not None:
            found.append(difference)
    return sorted(found, key=lambda one: -one.relative)


def _tensor(name: str, one: Tensor, other: Tensor) -> TensorDifference | None:
    """In double precision; a NaN that became a number, or the reverse, is infinitely far."""
    import torch

    if torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)):
        return None
    before, after = one.double(), other.double()
    apart = (after - before).abs()
    apart = torch.where(before.isnan() & after.isnan() | (before == after), torch.zeros_like(apart), apart)
    largest = float(apart.nan_to_num(nan=math.inf).max())
    norm, scale = float(apart.nan_to_num(nan=math.inf).norm()), float(before.nan_to_num().norm())
    relative = 0.0 if norm == 0 else norm / scale if scale > 0 else math.inf
    return TensorDifference(name, tuple(other.shape), largest, relative, float((apart != 0).double().mean()))


def _incomparable(name: str, shape: Sequence[int], problem: str) -> TensorDifference:
    return TensorDifference(name, tuple(shape), math.inf, math.inf, 1.0, problem)


def reasons(stages: Sequence[Stage], then: Environments, now: Environments) -> dict[str, list[Difference]]:
    """By stage, in what two environments differ that may change its bytes; only stages with both known."""
    marked = any("portable" in stage.params for stage in stages)
    found = {}
    for stage in stages:
        if stage.name in then and stage.name in now:
            one, other = then[stage.name], now[stage.name]
            if _renders(stage):
                every = environment.differences(replace(one, portable=False), replace(other, portable=False))
                found[stage.name] = [one for one in every if one.what == "cpu" or not one.of_processor]
            else:
                at_risk = "portable" in stage.params or not marked
                every = environment.differences(one, other)
                found[stage.name] = [one for one in every if at_risk or not one.of_processor]
    return found


def _renders(stage: Stage) -> bool:
    """Whether a stage uses Mitsuba, whose binaries take approximate roots from the processor: docs/portable.md."""
    return "data.scenes.render" in stage.cmd


def beforehand(stages: Sequence[Stage], then: Environments, now: Environments) -> str:
    """One line: whether identity can be expected of the stages here, and why (not)."""
    known = reasons(stages, then, now)
    if not known:
        return "nothing can be said of whether bytes will be the same: where the run, or this one, works is not known"
    first = next((name for name, found in known.items() if found), None)
    if first is None:
        here = now[next(iter(known))]
        why = "portable: true, as then" if here.portable else f"{here.machine}, as then"
        return f"the same bytes are expected: the same packages; {why}"
    line = f"other bytes are likely from {first} on: {'; '.join(map(str, known[first]))}"
    if any(_renders(stage) for stage in stages if stage.name == first and known[first]):
        line += "; --from inputs starts from the scenes that were recorded"
    elif any(one.of_processor for one in known[first]):
        line += "; only what was trained with portable: true has the same on every processor"
    return line


def explanation(stage: str, stages: Sequence[Stage], then: Environments, now: Environments) -> str:
    """What explains that a stage gave other outputs from the same inputs."""
    found = reasons(stages, then, now).get(stage)
    if found is None:
        return "the run did not note where it ran, so the processor may explain it"
    if any(one.of_processor for one in found):
        return f"the processor explains it ({'; '.join(str(one) for one in found if one.of_processor)})"
    if found:
        return f"the processor does not explain it, but this may: {'; '.join(map(str, found))}"
    return (
        "the processor does not explain it, nor does anything else of the environment: the stage is not deterministic"
    )
