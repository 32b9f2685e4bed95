"""A proof for people and for programs: the table of stages, the tensors and metrics that differ, the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from flows.reproduce.compare import DIFFERENT, FAILED, IDENTICAL, StageProof, TensorDifference, Weights, distance
from flows.reproduce.prove import ModelProof, Proof
from flows.show.columns import columns

SHOWN = 12  # tensors and metrics per stage; the rest is counted


def text(proof: Proof) -> str:
    """Everything, the verdicts last."""
    parts = [columns([("stage", "seconds", "outputs", "what differs"), *map(_row, proof.stages)], right=(1,))]
    parts += [table for stage in proof.stages if not stage.identical for table in _details(stage)]
    parts.append(f"Environment: {_environment(proof)}")
    return "\n\n".join([*parts, "\n".join(sentence(model, proof) for model in proof.models)])


def sentence(model: ModelProof, proof: Proof) -> str:
    """The verdict on one model in one line."""
    where = f"{model.target.title} of {model.target.commit[:12]}, from {proof.source}"
    if model.verdict == FAILED:
        return f"{where}: failed. {model.why}."
    if model.verdict == IDENTICAL:
        return f"{where}: identical. {model.why[:1].upper()}{model.why[1:]}."
    if model.verdict == DIFFERENT:
        return f"{where}: different, first in stage {model.first or model.stages[-1]}. {model.why}."
    return f"{where}: same within tolerance ({proof.tolerance}); first other bytes in stage {model.first}. {model.why}."


def to_json(proof: Proof) -> dict[str, Any]:
    return {
        "verdict": proof.verdict,
        "from": proof.source,
        "seconds": round(proof.seconds, 1),
        "environment": {
            "digest": proof.here.digest,
            "machine": proof.here.machine,
            "noted_by_the_run": proof.noted,
            "differences": list(proof.environment),
        },
        "tolerance": asdict(proof.tolerance),
        "models": [model_json(model, proof) for model in proof.models],
        "stages": [_stage_json(stage) | {"machine": proof.where([stage.stage]).machine} for stage in proof.stages],
    }


def model_json(model: ModelProof, proof: Proof) -> dict[str, Any]:
    """What the journal keeps of one model's reproduction."""
    return {
        "model": model.target.model.name,
        "tag": model.target.tag,
        "commit": model.target.commit,
        "known_by": model.target.by,
        "from": proof.source,
        "verdict": model.verdict,
        "first_difference": model.first or None,
        "why": model.why,
        "weights": {"then": model.target.weights or None, "now": model.weights or None},
        "stages": {stage.stage: stage.identical for stage in proof.stages if stage.stage in model.stages},
        "environment": proof.where(model.stages).digest,
        "machine": proof.where(model.stages).machine,
        "environment_differences": list(proof.environment) if proof.noted else None,
    }


def _row(stage: StageProof) -> tuple[str, ...]:
    same = sum(stage.then.get(out) == digest for out, digest in stage.now.items())
    count = f"{same} of {len(stage.then)} the same"
    differs = "; ".join([*stage.outs, *stage.inputs, *(f"in the commit: {one}" for one in stage.altered)][:4])
    return stage.stage, f"{stage.seconds:.1f}", "identical" if stage.identical else count, differs


def _environment(proof: Proof) -> str:
    same = "as it was" if proof.noted else "the run did not note its own, so it cannot be compared"
    return "; ".join(proof.environment) or f"{proof.here.machine}, {same}"


def _details(stage: StageProof) -> Iterator[str]:
    """The tensors and the metrics of a stage that differ."""
    for weights in stage.weights:
        if weights.tensors is None:
            yield f"{weights.path}: the original's bytes are not within reach (cache, DVC remote, release)"
            continue
        lines = [("tensor", "shape", "max abs", "relative", "differing", ""), *map(_tensor, weights.tensors)]
        yield f"{weights.path}\n{_table(lines, 'tensors', right=(2, 3, 4))}"
    if stage.metrics is None:
        yield f"metrics of {stage.stage}: the original's are not within reach (cache, DVC remote)"
    elif apart := [(key, *pair) for key, pair in stage.metrics.items() if distance(*pair) > 0]:
        rows = [(key, f"{then:.6g}", f"{now:.6g}", _number(distance(then, now))) for key, then, now in apart]
        yield _table([("metric", "then", "now", "relative"), *rows], "metrics", right=(1, 2, 3))


def _tensor(one: TensorDifference) -> tuple[str, ...]:
    shape = "x".join(map(str, one.shape)) or "1"
    return one.name, shape, _number(one.largest), _number(one.relative), f"{one.share:.1%}", one.problem


def _table(lines: Sequence[tuple[str, ...]], what: str, right: Sequence[int]) -> str:
    """The headings and the first lines; what is left out is counted."""
    rest = len(lines) - 1 - SHOWN
    return columns(lines[: SHOWN + 1], right) + (f"\n... and {rest} more {what}" if rest > 0 else "")


def _stage_json(stage: StageProof) -> dict[str, Any]:
    return {
        "stage": stage.stage,
        "identical": stage.identical,
        "seconds": round(stage.seconds, 2),
        "host": stage.host or None,
        "outputs": {
            out: {"then": stage.then.get(out), "now": stage.now.get(out)} for out in {**stage.then, **stage.now}
        },
        "inputs": list(stage.inputs),
        "altered": list(stage.altered),
        "tensors": {weights.path: _weights_json(weights) for weights in stage.weights},
        "metrics": None
        if stage.metrics is None
        else {key: {"then": _finite(then), "now": _finite(now)} for key, (then, now) in stage.metrics.items()},
    }


def _weights_json(weights: Weights) -> list[dict[str, Any]] | None:
    if weights.tensors is None:
        return None
    return [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "max_abs": _finite(tensor.largest),
            "relative": _finite(tensor.relative),
            "share": tensor.share,
            "problem": tensor.problem or None,
        }
        for tensor in weights.tensors
    ]


def _finite(value: float) -> float | None:
    """JSON has no infinity."""
    return value if math.isfinite(value) else None


def _number(value: float) -> str:
    return f"{value:.2e}" if math.isfinite(value) else "-"
