"""The gates' decision about a run: what its models and production showed is gathered, judged, and stored."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.catalogue.registered import Registered
from flows.pipeline.families import Model, metrics_in, models_of
from flows.pipeline.lock import data_of, read_lock
from flows.pipeline.run import RunInfo
from flows.release import bundle
from flows.release.gates import record, speed
from flows.release.gates.compare import InProduction, Measured, NotComparable, Number, Speed, numbers, read_samples
from flows.release.gates.decision import Decision
from flows.release.gates.evaluation import EvaluationFailed, context, evaluate_again
from flows.release.gates.judge import decide, stands
from flows.release.gates.policy import REQUIRED, Gate, gates_of
from flows.release.pointers import Pointer
from flows.release.stores import Stores
from flows.settings import Settings, child_environment
from flows.storage.protocol import Bucket
from models.metrics import METRICS


@dataclass(frozen=True)
class _Baseline:
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
    stores: Stores, run: RunInfo, registered: Sequence[Registered], bases: Mapping[str, Pointer | None]
) -> Judged:
    """Decide about every registered version of a run by the policy of its commit; the decisions are stored.

    bases: by family, the release that the verdict holds against. Nothing is released. UserError for a mistake in the
    policy, or a bucket or catalogue that does not answer.
    """
    home, models = stores.settings.home, models_of(run.workspace)
    gates = defaultdict(Gate, gates_of(run.workspace))
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix="gates-") as scratch:
        baseline = _baseline(stores.bucket, registered, bases, Path(scratch))
        candidates = _Candidates(stores.settings, run.workspace, registered, gates, baseline)
        production, measured = candidates.production(), candidates.measured()
    with stores.catalogue.read() as session:
        given = record.approvals(session, [(one.model.name, one.version) for one in registered])
    bound = {model.name: model.bound_to for model in models if model.bound_to}
    decisions = decide(registered, gates, production, bound, measured, given)
    record.store(stores.catalogue, run.id, decisions)
    return Judged(tuple(decisions), production, _compared(registered, gates, production, measured))


def _baseline(
    bucket: Bucket, registered: Sequence[Registered], bases: Mapping[str, Pointer | None], scratch: Path
) -> dict[str, _Baseline]:
    """The members of the families' releases, fetched where anything changed."""
    found: dict[str, _Baseline] = {}
    candidates = {one.model.name: (one.weights, one.config) for one in registered}
    for pointer in filter(None, bases.values()):
        manifests = [bundle.read(bucket, member.model, member.bundle) for member in pointer.members]
        changed = any(candidates.get(one.model) not in (None, (one.weights, one.config)) for one in manifests)
        for member, manifest in zip(pointer.members, manifests, strict=True):
            folder = scratch / member.model
            if changed:
                bundle.fetch(bucket, member.model, member.bundle, folder)
            shown, parents = manifest.evaluation, manifest.lineage.parents
            value = InProduction(member.version, member.weights, parents, shown.metrics, config=manifest.config)
            found[member.model] = _Baseline(folder, shown.context, value)
    return found


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
            found[name] = numbers(before, after, samples=pairs, margins=gates[name].margins)
    return found


@dataclass(frozen=True)
class _Candidates:
    """A run's registered versions beside what is in production, and what the gates ask about both."""

    settings: Settings
    workspace: Path
    registered: Sequence[Registered]
    gates: Mapping[str, Gate]
    baseline: Mapping[str, _Baseline]

    def production(self) -> dict[str, InProduction]:
        """Production with numbers of the run's own context: evaluated again where a gate asks, else left out."""
        values = {name: replace(one.value, metrics={}) for name, one in self.baseline.items()}
        for one in self.registered:
            name = one.model.name
            if name not in self.baseline:
                continue
            now = self.baseline[name]
            if stands(one, now.value) or not self.gates[name].margins:
                if now.context == context(self.workspace, one.model):
                    values[name] = now.value
                continue
            try:
                values[name] = self._in_context(one.model, now)
            except (EvaluationFailed, NotComparable) as error:
                values[name] = replace(values[name], problem=f"production v{now.value.version}: {error}")
        return values

    def _in_context(self, model: Model, now: _Baseline) -> InProduction:
        if now.context and now.context == context(self.workspace, model):
            return replace(now.value, samples=read_samples(now.folder / "per_sample.parquet", model.section))
        folders = {name: one.folder for name, one in self.baseline.items()}
        results = evaluate_again(self.settings, self.workspace, model, folders)
        samples = read_samples(results / "per_sample.parquet", model.section)
        return replace(now.value, metrics=metrics_in(results / "metrics.json", model), samples=samples)

    def measured(self) -> dict[str, Measured]:
        """What the gates ask about each changed candidate beside its metrics."""
        changed = [
            one
            for one in self.registered
            if one.model.name not in self.baseline or not stands(one, self.baseline[one.model.name].value)
        ]
        pairs = [self._pair(one.model) for one in changed if self.gates[one.model.name].latency.asked]
        unset = dict.fromkeys(("MLFLOW_TRACKING_URI", "REMINT_CHECKPOINTS", "REMINT_ARRIVED"), "")
        speeds = speed.measure(self.workspace, pairs, child_environment(self.settings) | unset)
        return {one.model.name: self._shown(one, speeds.get(one.model.name, Speed())) for one in changed}

    def _shown(self, one: Registered, took: Speed) -> Measured:
        gate, samples, problem = self.gates[one.model.name], None, ""
        if gate.margins:
            try:
                samples = read_samples(self.workspace / one.model.evaluated / "per_sample.parquet", one.model.section)
            except NotComparable as error:
                problem = f"the candidate's {error}"
        size = (self.workspace / one.model.path / "model.safetensors").stat().st_size
        verdict = validation_of(self.workspace, one.model) if gate.validation == REQUIRED else ""
        return Measured(samples, problem, size, took, verdict)

    def _pair(self, model: Model) -> speed.Pair:
        """The folders of a candidate and of the model it would replace, each with the tokenizer it needs."""
        places = {one.name: str((self.workspace / one.path).resolve()) for one in models_of(self.workspace)}
        fetched = {name: str(one.folder.resolve()) for name, one in self.baseline.items()}
        beside = model.bound_to or ""
        both = (places[model.name], fetched.get(model.name, ""), places.get(beside, ""), fetched.get(beside, ""))
        return speed.Pair(model.name, model.serving, *both)


def validation_of(workspace: Path, model: Model) -> str:
    """What validation said about the very data that a model was trained on: "passed", or what is wrong."""
    report = workspace / "artifacts" / "validate" / "report.json"
    if not report.exists():
        return "not validated: the run has no artifacts/validate/report.json"
    stages = read_lock(workspace)
    checked = {dep.get("md5") for dep in stages.get("validate", {}).get("deps", [])}
    for name, digests in data_of({"stages": stages}, model.path.as_posix()).items():
        if not set(digests.split(",")) <= checked:
            return f"not validated: the {name} it was trained on are not those of the report"
    found = json.loads(report.read_text())
    return "passed" if found["success"] is True else f"failed: {found.get('critical_failed', 'some')} critical"
