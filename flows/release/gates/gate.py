"""Decide about a run's models: gather what they and production showed, judge, and store what came of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data.core import plain_yaml
from flows.catalogue.database import Catalogue
from flows.pipeline.families import Model, metrics_in, models_of
from flows.pipeline.lock import data_of
from flows.release import bundle
from flows.release.gates import record, speed
from flows.release.gates.compare import NotComparable, Samples, read_samples
from flows.release.gates.decision import Decision, InProduction, Measured, Speed
from flows.release.gates.evaluation import EvaluationFailed, context, evaluate_again
from flows.release.gates.judge import decide, stands
from flows.release.gates.numbers import Number, numbers
from flows.release.gates.policy import REQUIRED, Gate, gates_of
from flows.release.pointers import Pointer
from flows.release.registry import Registered
from flows.runs.values import RunInfo
from flows.settings import Settings, child_environment
from flows.storage.protocol import Bucket
from models.metrics import METRICS


@dataclass(frozen=True)
class _Standing:
    """A member of a family's newest release, brought to this machine."""

    folder: Path
    context: str
    value: InProduction


@dataclass(frozen=True)
class Judged:
    """The decisions about a run, and what they were made against."""

    decisions: tuple[Decision, ...]
    production: Mapping[str, InProduction]  # its numbers are of the run's own context, or left out
    compared: Mapping[str, tuple[Number, ...]]  # by model: production's numbers and the candidate's


def decide_run(
    settings: Settings,
    run: RunInfo,
    registered: Sequence[Registered],
    catalogue: Catalogue,
    bucket: Bucket,
    bases: Mapping[str, Pointer | None],
) -> Judged:
    """Decide about every registered version of a run by the policy of its commit; the decisions are stored.

    bases: by family, the release that the verdict holds against. Nothing is released. UserError for a mistake in the
    policy, or a bucket or catalogue that does not answer.
    """
    models = models_of(run.workspace)
    gates = gates_of(run.workspace)
    bound = {model.name: model.bound_to for model in models if model.bound_to}
    settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.home, prefix="gates-") as scratch:
        standing = _production(bucket, registered, bases, Path(scratch))
        changed = [one for one in registered if not _stands(one, standing)]
        production = _comparable(settings, run.workspace, registered, gates, standing)
        measured = _measured(settings, run.workspace, changed, gates, standing)
    with catalogue.read() as session:
        given = record.approvals(session, [(one.model.name, one.version) for one in registered])
    decisions = decide(registered, gates, production, bound, measured, given)
    record.store(catalogue, run.id, decisions)
    return Judged(tuple(decisions), production, _compared(registered, gates, production, measured))


def _production(
    bucket: Bucket, registered: Sequence[Registered], bases: Mapping[str, Pointer | None], scratch: Path
) -> dict[str, _Standing]:
    """The members of the families' releases, fetched where anything changed."""
    found: dict[str, _Standing] = {}
    candidates = {one.model.name: (one.weights, one.config) for one in registered}
    for pointer in bases.values():
        members = pointer.members if pointer else ()
        manifests = {member.model: bundle.read(bucket, member.model, member.bundle) for member in members}
        there = {name: (manifest.weights, manifest.config) for name, manifest in manifests.items()}
        changed = any(candidates.get(name) not in (None, same) for name, same in there.items())
        for member in members:
            folder, manifest = scratch / member.model, manifests[member.model]
            if changed:
                bundle.fetch(bucket, member.model, member.bundle, folder)
            shown, parents = manifest.evaluation, manifest.lineage.parents
            value = InProduction(member.version, member.weights, parents, shown.metrics, config=manifest.config)
            found[member.model] = _Standing(folder, shown.context, value)
    return found


def _comparable(
    settings: Settings,
    workspace: Path,
    registered: Sequence[Registered],
    gates: Mapping[str, Gate],
    standing: Mapping[str, _Standing],
) -> dict[str, InProduction]:
    """Production with numbers of the run's own context: evaluated again where a gate asks, else left out."""
    values = {name: replace(one.value, metrics={}) for name, one in standing.items()}
    for one in registered:
        name, model = one.model.name, one.model
        if name not in standing:
            continue
        now = standing[name]
        if stands(one, now.value) or not gates.get(name, Gate()).margins:
            if now.context == context(workspace, model):
                values[name] = now.value
            continue
        try:
            values[name] = _in_context(settings, workspace, model, standing)
        except (EvaluationFailed, NotComparable) as error:
            values[name] = replace(values[name], problem=f"production v{values[name].version}: {error}")
    return values


def _compared(
    registered: Sequence[Registered],
    gates: Mapping[str, Gate],
    production: Mapping[str, InProduction],
    measured: Mapping[str, Measured],
) -> dict[str, tuple[Number, ...]]:
    """Production's numbers and the candidate's over all classes, for each model that has both in one context."""
    found = {}
    for one in registered:
        name = one.model.name
        now, shown = production.get(name), measured.get(name, Measured())
        if now is not None and now.metrics:
            pairs = (now.samples, shown.samples) if now.samples and shown.samples else None
            before, after = ({n: v for n, v in side.items() if n in METRICS} for side in (now.metrics, one.metrics))
            found[name] = numbers(before, after, samples=pairs, margins=gates.get(name, Gate()).margins)
    return found


def _in_context(settings: Settings, workspace: Path, model: Model, standing: Mapping[str, _Standing]) -> InProduction:
    now = standing[model.name]
    wanted = context(workspace, model)
    if now.context and now.context == wanted:
        return replace(now.value, samples=read_samples(now.folder / "per_sample.parquet", model.section))
    results = evaluate_again(settings, workspace, model, {name: one.folder for name, one in standing.items()})
    samples = read_samples(results / "per_sample.parquet", model.section)
    return replace(now.value, metrics=metrics_in(results / "metrics.json", model), samples=samples)


def _measured(
    settings: Settings,
    workspace: Path,
    changed: Sequence[Registered],
    gates: Mapping[str, Gate],
    standing: Mapping[str, _Standing],
) -> dict[str, Measured]:
    """What the gates ask about each candidate beside its metrics."""
    asked = [one for one in changed if gates.get(one.model.name, Gate()).latency.asked]
    pairs = [_pair(workspace, one.model, models_of(workspace), standing) for one in asked]
    environment = child_environment(settings) | dict.fromkeys(
        ("MLFLOW_TRACKING_URI", "REMINT_CHECKPOINTS", "REMINT_ARRIVED"), ""
    )
    speeds = speed.measure(workspace, pairs, environment)
    return {
        one.model.name: _shown(workspace, one, gates.get(one.model.name, Gate()), speeds.get(one.model.name, Speed()))
        for one in changed
    }


def _shown(workspace: Path, one: Registered, gate: Gate, took: Speed) -> Measured:
    samples: Samples | None = None
    problem = ""
    if gate.margins:
        path = workspace / one.model.evaluated / "per_sample.parquet"
        try:
            samples = read_samples(path, one.model.section)
        except NotComparable as error:
            problem = f"the candidate's {error}"
    size = (workspace / one.model.path / "model.safetensors").stat().st_size
    verdict = validation_of(workspace, one.model) if gate.validation == REQUIRED else ""
    return Measured(samples, problem, size, took, verdict)


def validation_of(workspace: Path, model: Model) -> str:
    """What validation said about the very data that a model was trained on: "passed", or what is wrong."""
    report = workspace / "artifacts" / "validate" / "report.json"
    if not report.exists():
        return "not validated: the run has no artifacts/validate/report.json"
    lock = plain_yaml.recorded((workspace / "dvc.lock").read_bytes()) or {}
    checked = {dep.get("md5") for dep in lock.get("stages", {}).get("validate", {}).get("deps", [])}
    for name, digests in data_of(lock, model.path.as_posix()).items():
        if not set(digests.split(",")) <= checked:
            return f"not validated: the {name} it was trained on are not those of the report"
    found = json.loads(report.read_text())
    return "passed" if found["success"] is True else f"failed: {found.get('critical_failed', 'some')} critical"


def _pair(workspace: Path, model: Model, models: Sequence[Model], standing: Mapping[str, _Standing]) -> speed.Pair:
    """The folders of a candidate and of the model it would replace, each with the tokenizer it needs."""
    places = {one.name: str((workspace / one.path).resolve()) for one in models}
    fetched = {name: str(one.folder.resolve()) for name, one in standing.items()}
    beside = model.bound_to or ""
    return speed.Pair(
        model=model.name,
        serving=model.serving,
        candidate=places[model.name],
        production=fetched.get(model.name, ""),
        beside=places.get(beside, ""),
        production_beside=fetched.get(beside, ""),
    )


def _stands(one: Registered, standing: Mapping[str, _Standing]) -> bool:
    return one.model.name in standing and stands(one, standing[one.model.name].value)
