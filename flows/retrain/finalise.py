"""What a run does once its stages are done, each step a plain function: record, register, judge, release, report.

The run's tag comes first: what the registry names can then always be made again from git. `note` writes down how far
a run has come, so that a run that was interrupted between its tag and its release is finished by the next one, or by
`remint doctor --repair`.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.core.params import UserError
from flows import repository, state
from flows.pipeline import environment, families, integrity, workspace
from flows.pipeline.families import Model
from flows.pipeline.graph import Stage
from flows.pipeline.integrity import Objects
from flows.pipeline.lock import read_lock
from flows.pipeline.plan import overlap
from flows.runs import values as run
from flows.runs.values import RunInfo, StageResult
from flows.settings import Settings
from models.tracking.experiments import GATE

if TYPE_CHECKING:
    from flows.catalogue.record import Alarm
    from flows.release.gates.judge import Decision, InProduction
    from flows.release.gates.numbers import Number
    from flows.release.pointers import Pointer
    from flows.release.promote import Outcome
    from flows.release.registry import Registered
    from flows.release.stores import Stores

RECORD = "run.json"
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


@dataclass(frozen=True)
class Noted:
    """What this machine noted of a run."""

    run: RunInfo
    results: tuple[StageResult, ...]
    finished: bool


def record(
    settings: Settings,
    ran: RunInfo,
    stages: Sequence[Stage],
    results: Sequence[StageResult],
    newest: str | None = None,
) -> RunInfo:
    """Commit dvc.lock in the run's worktree, tag the commit, and return the run with its commit.

    newest: the tag of the run whose results count where a stage is current.
    The note comes before the tag: every run whose tag is there can be finished by whoever finds it unfinished.
    """
    workspace.order_lock(ran.workspace, [stage.name for stage in stages])
    kept = [path for stage in stages for path in stage.metrics if _is_tracked(ran.workspace, path)]
    message = f"{run.RECORDED} {ran.id}\n\n{_where(settings, ran, results, newest)}"
    commit = repository.commit(ran.workspace, message, ["dvc.lock", *kept], allow_empty=True)
    done = replace(ran, commit=commit)
    note(settings, done, results, finished=False)
    repository.tag(ran.workspace, ran.tag, f"Run {ran.id} of {ran.base_commit[:7]} ({ran.trigger})", commit)
    return done


def record_failure(settings: Settings, ran: RunInfo, stages: Sequence[Stage], results: Sequence[StageResult]) -> None:
    """Remember a run that failed; it has no tag, and nothing of it is registered."""
    from flows.catalogue import record
    from flows.release import stores

    with stores.opened(settings) as places:
        record.record_run(places.catalogue, settings, ran, stages, results)


def with_tracking(
    settings: Settings, ran: RunInfo, stages: Sequence[Stage], results: Sequence[StageResult]
) -> tuple[StageResult, ...]:
    """The results with the ids of the MLflow runs that the stages left, and of those that are written here for data."""
    from flows.retrain import data_runs
    from models.tracking import training_run

    client, _ = training_run.connect(settings.mlflow_uri)
    if client is None:
        return tuple(results)
    data_runs.track(client, ran, stages, results)
    experiments = [found.experiment_id for found in client.search_experiments()]
    tracked = client.search_runs(experiments, f"tags.{training_run.RUN} = '{ran.id}'", order_by=["start_time ASC"])
    ids = {found.data.tags.get(training_run.STAGE): found.info.run_id for found in tracked}
    return tuple(replace(result, mlflow_run_id=ids.get(result.name)) for result in results)


def verify(settings: Settings, ran: RunInfo, stages: Sequence[Stage], results: Sequence[StageResult]) -> None:
    """UserError if a stage has read, or brought back from the cache, what is not as dvc.lock records it."""
    actions = {result.name: result.action for result in results}
    used = [path for one in stages if actions.get(one.name) != "current" for path in one.deps]
    used += [path for one in stages if actions.get(one.name) == "restored" for path in one.outs]
    here = lambda path: (ran.workspace / path).exists() and any(overlap(path, one) for one in used)  # noqa: E731
    objects = Objects(workspace.cache(settings))
    integrity.check(ran.workspace, read_lock(ran.workspace), objects, here)


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
    from flows.catalogue import record
    from flows.release import registry, tags

    verify_models(stores.settings, ran, family)
    registered = registry.register_models(ran, stores.settings, family)
    tagged = tags.tag_versions(registered, stores.settings)
    alarms = record.record_run(stores.catalogue, stores.settings, ran, stages, results, tagged)
    return Release(tuple(tagged), tuple(alarms))


def judge(stores: Stores, ran: RunInfo, made: Release) -> Release:
    """Let the gates decide about the registered versions, against what is in production now."""
    from flows.release import promote, registry
    from flows.release.gates import gate

    bases = promote.newest(stores, sorted({one.model.family for one in made.registered}))
    judged = gate.decide_run(stores.settings, ran, made.registered, stores.catalogue, stores.bucket, bases)
    said = {(one.model, one.version): {GATE: one.verdict} for one in judged.decisions if not one.unchanged}
    registry.mark(stores.settings, said)
    return replace(made, bases=bases, before=judged.production, compared=judged.compared, decisions=judged.decisions)


def release(stores: Stores, ran: RunInfo, made: Release) -> Release:
    """Promote each family that the gates let pass."""
    from flows.release import promote
    from flows.release.stores import who

    person = who(stores.settings)
    outcomes = [
        promote.promote(stores, ran, family, made.registered, made.decisions, base, person, ran.trigger)
        for family, base in made.bases.items()
    ]
    return replace(made, outcomes=tuple(outcomes))


def report(settings: Settings, ran: RunInfo, results: Sequence[StageResult], made: Release) -> Path:
    """Put the run's report where it stays when the worktree is gone."""
    from flows.retrain import report as pages

    return pages.write(ran, results, made, settings)


def complete(stores: Stores, left: Noted) -> tuple[tuple[StageResult, ...], Release, Path] | None:
    """Register, judge, release and report a run that was recorded and then interrupted; no stage runs again.

    A family of which a newer run was judged since is only registered. None if another process completed the run.
    """
    from flows.pipeline.store import Store
    from flows.release import recorded
    from flows.remote import origin

    with _alone(stores.settings, left.run):
        now = noted(stores.settings, left.run.id)
        if now is None or now.finished:
            return None
        with recorded.opened(stores, left.run, whole=True) as ran:
            store = Store(ran.workspace)
            try:
                stages = store.stages
            finally:
                store.close()
            made = register(stores, ran, stages, left.results)
            late = _overtaken(stores, ran, made)
            own = tuple(one for one in made.registered if one.model.family not in late)
            judged = release(stores, ran, judge(stores, ran, replace(made, registered=own)))
            made = replace(judged, registered=made.registered, outcomes=(*judged.outcomes, *late.values()))
            page = report(stores.settings, ran, left.results, made)
        if stores.settings.stages == "workers":
            origin.publish(stores.settings.root, left.run.commit)
        note(stores.settings, left.run, left.results, finished=True)
    return left.results, made, page


def _overtaken(stores: Stores, ran: RunInfo, made: Release) -> dict[str, Outcome]:
    """The families of which a newer run was judged or released since: an older model must not take its place.

    Runs are newer by their ids, as everywhere.
    """
    from flows.release import promote
    from flows.release.gates import record

    found = {}
    for family, base in promote.newest(stores, sorted({one.model.family for one in made.registered})).items():
        with stores.catalogue.read() as session:
            newest = max([*record.runs_of(session, family), base.run if base else ""])
        if newest > ran.id:
            reason = f"not judged, for run {newest} was since; to have it judged all the same: remint promote {family}"
            found[family] = promote.Outcome(family, "lost", f"{reason} {ran.id}", base)
    return found


@contextmanager
def _alone(settings: Settings, ran: RunInfo) -> Iterator[None]:
    """One process at a time completes a run; another waits, and finds it completed."""
    with (settings.runs / ran.id / "completing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def note(settings: Settings, ran: RunInfo, results: Sequence[StageResult], *, finished: bool) -> None:
    """Note how far a run has come."""
    values = {"run": run.to_json(ran), "results": [run.result_to_json(one) for one in results], "finished": finished}
    state.write(settings.runs / ran.id / RECORD, values)


def noted(settings: Settings, identifier: str) -> Noted | None:
    """What this machine noted of a run, None if it ran on another; UserError if the note is damaged."""
    path = settings.runs / identifier / RECORD

    def made(values: dict[str, Any]) -> Noted:
        results = tuple(run.result_from_json(one) for one in values.get("results", []))
        found = Noted(run.from_json(values["run"]), results, values["finished"] is True)
        if found.run.id != identifier:
            raise ValueError(f"it is of run {found.run.id}")
        return found

    return state.read(path, made, f"git and the catalogue know the run without it: rm '{path}', then: remint doctor")


def unfinished(settings: Settings, damaged: Callable[[str, UserError], None] | None = None) -> list[Noted]:
    """Every run that was recorded here and died before its models were registered and released, the oldest first.

    damaged: told the id of each run whose note is damaged, and why; without it that is an error.
    """
    living = workspace.living(settings)
    folders = sorted(path.parent.name for path in settings.runs.glob(f"*/{RECORD}"))
    left = []
    for name in folders:
        try:
            left.append(noted(settings, name) if name not in living else None)
        except UserError as error:
            if damaged is None:
                raise
            damaged(name, error)
    return [one for one in left if one and not one.finished and _has_tag(settings, one.run)]


def _where(settings: Settings, ran: RunInfo, results: Sequence[StageResult], newest: str | None) -> str:
    """The lines of a run's commit message that say where it ran, and where each stage did if workers ran them."""
    here = environment.trailer(environment.describe(ran.workspace))
    if settings.stages == "here":
        return here
    current = [result.name for result in results if result.action == "current"]
    known = environment.of_stages(ran.workspace, newest, current) if newest else {}
    known |= {result.name: environment.parse(result.environment) for result in results if result.environment}
    return f"{here}\n{environment.stages_trailer(known)}"


def _has_tag(settings: Settings, ran: RunInfo) -> bool:
    return (
        repository.git(settings.root, "rev-parse", "-q", "--verify", f"{ran.tag}^{{commit}}", check=False) == ran.commit
    )


def _is_tracked(root: Path, path: str) -> bool:
    """Whether a file that DVC does not cache is to be kept in git instead."""
    return (root / path).exists() and not repository.git(root, "check-ignore", "--", path, check=False)
