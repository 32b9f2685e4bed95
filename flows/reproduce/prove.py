"""The proof of a reproduction: every stage against dvc.lock, and for what differs the tensors and metrics behind it."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flows.pipeline import graph
from flows.pipeline.environment import Environment
from flows.pipeline.families import read_metrics
from flows.pipeline.graph import Stage
from flows.pipeline.lock import Entry
from flows.pipeline.plan import overlap
from flows.pipeline.run import StageResult
from flows.pipeline.store import as_recorded
from flows.release.outcome import RunOutcome
from flows.reproduce import compare, originals
from flows.reproduce.compare import DIFFERENT, FAILED, StageProof, Tolerance, Verdict, Weights
from flows.reproduce.remake import Remake
from flows.reproduce.target import Target
from models.core.saved import weights_digest


@dataclass(frozen=True)
class ModelProof:
    """The verdict on one model version."""

    target: Target
    verdict: Verdict
    stages: tuple[str, ...]  # its own and all that ran before it
    first: str  # the first stage that differs or failed, "" if none
    weights: str  # sha256 of model.safetensors as it came out, "" if it did not
    why: str  # in one line


@dataclass(frozen=True)
class Where:
    """The environments of some stages; of several, in the order of the stages."""

    digest: str
    machine: str


@dataclass(frozen=True)
class Proof:
    """What came of making the models of one run again."""

    models: tuple[ModelProof, ...]
    stages: tuple[StageProof, ...]  # in topological order
    tolerance: Tolerance
    source: str  # "scratch", "inputs"
    ran: Mapping[str, Environment]  # by stage, where it ran now
    noted: bool  # whether the run noted its own environments
    environment: tuple[str, ...]  # in what they differ
    seconds: float

    @property
    def verdict(self) -> Verdict:
        return compare.worst([model.verdict for model in self.models])

    @property
    def here(self) -> Where:
        """Where all stages ran."""
        return self.where(self.ran)

    def where(self, stages: Collection[str]) -> Where:
        """Where these stages ran: one environment, or those of several workers."""
        found = {env.digest: env.machine for name, env in self.ran.items() if name in stages}
        return Where("+".join(found), ", ".join(dict.fromkeys(found.values())))


def prove(job: Remake, made: Mapping[str, Entry], outcome: RunOutcome, tolerance: Tolerance, seconds: float) -> Proof:
    """Judge every model of a job whose stages have ended, while its worktree still stands; `made`: its dvc.lock."""
    ran = job.ran(outcome)
    with tempfile.TemporaryDirectory(dir=job.folder) as scratch:
        proofs = [
            _stage(job, stage, made[stage.name], outcome.results[stage.name], Path(scratch))
            for stage in job.stages
            if stage.name in outcome.results
        ]
    return Proof(
        models=tuple(_model(job, target, proofs, outcome, tolerance) for target in job.targets),
        stages=tuple(proofs),
        tolerance=tolerance,
        source=job.source,
        ran=ran,
        noted=all(stage.name in job.then for stage in job.stages),
        environment=job.differences(ran),
        seconds=seconds,
    )


def _stage(job: Remake, stage: Stage, entry: Entry, result: StageResult, scratch: Path) -> StageProof:
    then, altered = as_recorded(job.lock[stage.name]), job.altered.get(stage.name, ())
    proof = compare.stage_proof(stage, then, as_recorded(entry), altered)
    proof = replace(proof, seconds=result.seconds, host=result.host)
    if proof.identical:
        return proof
    return replace(proof, weights=tuple(_weights(job, proof, scratch)), metrics=_metrics(job, stage, proof))


def _weights(job: Remake, proof: StageProof, scratch: Path) -> Iterator[Weights]:
    """The model files among the outputs that differ, each against the original's."""
    for out in proof.outs:
        made = {path.relative_to(job.run.workspace / out).as_posix(): path for path in _files(job.run.workspace / out)}
        then = originals.find(job.store, proof.then[out]) if out in proof.then else {}
        if not then:
            released = [target for target in job.targets if target.model.path.as_posix() == out]
            found = [originals.weights_of_release(job.settings, target, scratch / "bundle") for target in released]
            then = {path.name: path for path in found if path}
        for name in sorted(name for name in {*made, *then} if name.endswith(".safetensors")):
            both = name in made and name in then
            apart = tuple(compare.tensors_apart(then[name], made[name])) if both else None
            yield Weights(f"{out}/{name}", apart)


def _files(out: Path) -> list[Path]:
    return [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else []


def _metrics(job: Remake, stage: Stage, proof: StageProof) -> dict[str, tuple[float, float]] | None:
    """Every metric then and now, None if the original's cannot be reached; one that only one side has is NaN there."""
    found: dict[str, tuple[float, float]] = {}
    for path in stage.metrics:
        out = next(out for out in stage.outs if overlap(out, path))
        if out not in proof.outs:
            continue
        member = path.removeprefix(out).removeprefix("/")
        original = originals.find(job.store, proof.then[out]).get(member) if out in proof.then else None
        if original is None:
            return None
        then, now = read_metrics(original), read_metrics(job.run.workspace / path)
        found |= {key: (then.get(key, float("nan")), now.get(key, float("nan"))) for key in sorted({*then, *now})}
    return found


def _model(
    job: Remake, target: Target, proofs: list[StageProof], outcome: RunOutcome, tolerance: Tolerance
) -> ModelProof:
    names = {target.model.stage, *graph.upstream(job.stages, [target.model.stage])}
    stages = tuple(stage.name for stage in job.stages if stage.name in names)
    failed = [name for name in stages if name in outcome.failures]
    if failed or any(name not in outcome.results for name in stages):
        name = failed[0] if failed else next(name for name in stages if name not in outcome.results)
        why = str(outcome.failures[name]) if failed else f"{name} did not run"
        return ModelProof(target, FAILED, stages, name, "", why)
    own = [proof for proof in proofs if proof.stage in names]
    verdict, first = compare.verdict(own, tolerance), compare.first(own)
    weights = weights_digest(job.run.workspace / target.model.path)
    if first is not None:
        return ModelProof(target, verdict, stages, first.stage, weights, _why(first, job, job.ran(outcome)))
    if target.weights and weights != target.weights:  # dvc.lock has these bytes, so it is the tag that says otherwise
        why = f"weights {weights[:12]} as dvc.lock has them, but the tag says {target.weights[:12]}"
        return ModelProof(target, DIFFERENT, stages, stages[-1], weights, why)
    count = sum(len(proof.now) for proof in own)
    return ModelProof(target, verdict, stages, "", weights, f"all {count} outputs of {len(own)} stages are the same")


def _why(first: StageProof, job: Remake, ran: Mapping[str, Environment]) -> str:
    """What is known of the cause."""
    if first.altered:
        return f"{first.stage}: its commit is not what dvc.lock records: {'; '.join(first.altered[:3])}"
    if first.inputs:
        return f"{first.stage}: {'; '.join(first.inputs[:3])}"
    why = compare.explanation(first.stage, job.stages, job.then, ran)
    return f"{first.stage}: other outputs from the same inputs; {why}"
