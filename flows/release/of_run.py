"""A run's models: registered, judged by the gates, promoted; each step a plain function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flows.catalogue import record
from flows.catalogue.alarms import Alarm
from flows.pipeline import families, integrity, workspace
from flows.pipeline.families import Model
from flows.pipeline.graph import Stage
from flows.pipeline.integrity import Objects
from flows.pipeline.lock import read_lock
from flows.pipeline.plan import overlap
from flows.release import promote, registry, tags
from flows.release.gates import gate
from flows.release.gates.judge import Decision, InProduction
from flows.release.gates.numbers import Number
from flows.release.pointers import Pointer
from flows.release.promote import Outcome
from flows.release.registry import Registered
from flows.release.stores import Stores, who
from flows.runs.values import RunInfo, StageResult
from flows.settings import Settings
from models.tracking.experiments import GATE

SHARD = ".tar"  # how shards end: what is large, and only stages read it


@dataclass(frozen=True)
class Release:
    """What became of a run's models."""

    registered: tuple[Registered, ...] = ()
    alarms: tuple[Alarm, ...] = ()  # stages that were seen with two outputs for one input
    bases: Mapping[str, Pointer | None] = field(default_factory=dict)  # by family, what was in production till now
    before: Mapping[str, InProduction] = field(default_factory=dict)  # and its models
    compared: Mapping[str, tuple[Number, ...]] = field(default_factory=dict)  # their numbers beside the run's
    decisions: tuple[Decision, ...] = ()
    outcomes: tuple[Outcome, ...] = ()  # by family


def verify_models(settings: Settings, ran: RunInfo, family: str | None) -> None:
    """UserError unless models, evaluations and what else the last steps read are as dvc.lock records them."""
    root = ran.workspace
    models = families.models_of(root)
    own = [one for one in models if family in (None, one.family) and (root / one.path).is_dir()]
    whole, others = _folders(own), _folders(one for one in models if one not in own)

    def wanted(path: str) -> bool:
        if any(overlap(path, folder) for folder in whole):
            return True
        return not path.endswith(SHARD) and (root / path).is_file() and not any(overlap(path, one) for one in others)

    integrity.check(root, read_lock(root), Objects(workspace.cache(settings)), wanted)


def _folders(models: Iterable[Model]) -> set[str]:
    return {folder.as_posix() for one in models for folder in (one.path, one.evaluated)}


def register(
    stores: Stores, ran: RunInfo, stages: Sequence[Stage], results: Sequence[StageResult], family: str | None = None
) -> Release:
    """Register the run's models (of one family), tag their versions in git, and write the run into the catalogue."""

    verify_models(stores.settings, ran, family)
    registered = registry.register_models(ran, stores.settings, family)
    tagged = tags.tag_versions(registered, stores.settings)
    alarms = record.record_run(stores.catalogue, stores.settings, ran, stages, results, tagged)
    return Release(tuple(tagged), tuple(alarms))


def judge(stores: Stores, ran: RunInfo, made: Release) -> Release:
    """Let the gates decide about the registered versions, against what is in production now."""

    bases = promote.newest(stores, sorted({one.model.family for one in made.registered}))
    judged = gate.decide_run(stores.settings, ran, made.registered, stores.catalogue, stores.bucket, bases)
    said = {(one.model, one.version): {GATE: one.verdict} for one in judged.decisions if not one.unchanged}
    registry.mark(stores.settings, said)
    return replace(made, bases=bases, before=judged.production, compared=judged.compared, decisions=judged.decisions)


def release(stores: Stores, ran: RunInfo, made: Release) -> Release:
    """Promote each family that the gates let pass."""

    person = who(stores.settings)
    outcomes = [
        promote.promote(stores, ran, family, made.registered, made.decisions, base, person, ran.trigger)
        for family, base in made.bases.items()
    ]
    return replace(made, outcomes=tuple(outcomes))
