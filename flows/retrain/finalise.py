"""What a run does once its stages are done, each step a plain function: record, register, judge, release, report.

The run's tag comes first: what the registry names can then always be made again from git. Its record says how far it
has come (`flows.pipeline.run_record`), so that a run that was interrupted between its tag and its release is completed
by the next one, or by `remint doctor --repair`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from data.core import locks
from flows import repository
from flows.catalogue import record as catalogue
from flows.pipeline import environment, integrity, run, workspace
from flows.pipeline.graph import Stage
from flows.pipeline.integrity import Objects
from flows.pipeline.lock import read_lock
from flows.pipeline.plan import overlap
from flows.pipeline.run import RunInfo, StageResult
from flows.pipeline.run_record import RunRecord, load, save
from flows.pipeline.store import Store
from flows.release import origin, promote, recorded, stores
from flows.release.gates import record as decisions
from flows.release.of_run import judge, register, release
from flows.release.outcome import Release
from flows.release.promote import FamilyOutcome
from flows.release.stores import Stores
from flows.retrain import data_runs, report
from flows.settings import Settings
from models.tracking import training_run


def record(
    settings: Settings,
    ran: RunInfo,
    stages: Sequence[Stage],
    results: Sequence[StageResult],
    newest: str | None = None,
) -> RunInfo:
    """Commit dvc.lock in the run's worktree, tag the commit, and return the run with its commit.

    newest: the tag of the run whose results count where a stage is current.
    The record comes before the tag: every run whose tag is there can be finished by whoever finds it unfinished.
    """
    workspace.order_lock(ran.workspace, [stage.name for stage in stages])
    kept = [path for stage in stages for path in stage.metrics if _is_tracked(ran.workspace, path)]
    message = f"{run.RECORDED} {ran.id}\n\n{_where(settings, ran, results, newest)}"
    commit = repository.commit(ran.workspace, message, ["dvc.lock", *kept], allow_empty=True)
    done = replace(ran, commit=commit)
    save(settings, done, results, finished=False)
    repository.tag(ran.workspace, ran.tag, f"Run {ran.id} of {ran.base_commit[:7]} ({ran.trigger})", commit)
    return done


def record_failure(settings: Settings, ran: RunInfo, stages: Sequence[Stage], results: Sequence[StageResult]) -> None:
    """Remember a run that failed; it has no tag, and nothing of it is registered."""
    with stores.opened(settings) as places:
        catalogue.record_run(places.catalogue, settings, ran, stages, results)


def with_tracking(
    settings: Settings, ran: RunInfo, stages: Sequence[Stage], results: Sequence[StageResult]
) -> tuple[StageResult, ...]:
    """The results with the ids of the MLflow runs that the stages left, and of those that are written here for data."""
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


def complete(stores: Stores, left: RunRecord) -> tuple[tuple[StageResult, ...], Release, Path] | None:
    """Register, judge, release and report a run that was recorded and then interrupted; no stage runs again.

    A family of which a newer run was judged since is only registered. None if another process completed the run.
    """
    with _locked(stores.settings, left.run):
        now = load(stores.settings, left.run.id)
        if now is None or now.finished:
            return None
        with recorded.opened(stores, left.run, whole=True) as ran:
            with closing(Store(ran.workspace)) as store:
                stages = store.stages
            made = register(stores, ran, stages, left.results)
            late = _overtaken(stores, ran, made)
            own = tuple(one for one in made.registered if one.model.family not in late)
            judged = release(stores, ran, judge(stores, ran, replace(made, registered=own)))
            made = replace(judged, registered=made.registered, outcomes=(*judged.outcomes, *late.values()))
            page = report.write(ran, left.results, made, stores.settings)
        if stores.settings.stages == "workers":
            origin.publish(stores.settings.root, left.run.commit)
        save(stores.settings, left.run, left.results, finished=True)
    return left.results, made, page


def _overtaken(stores: Stores, ran: RunInfo, made: Release) -> dict[str, FamilyOutcome]:
    """The families of which a newer run was judged or released since: an older model must not take its place.

    Runs are newer by their ids, as everywhere.
    """
    found = {}
    for family, base in promote.newest(stores, sorted({one.model.family for one in made.registered})).items():
        with stores.catalogue.read() as session:
            newest = max([*decisions.runs_of(session, family), base.run if base else ""])
        if newest > ran.id:
            reason = f"not judged, for run {newest} was since; to have it judged all the same: remint promote {family}"
            found[family] = FamilyOutcome(family, "lost", f"{reason} {ran.id}", base)
    return found


@contextmanager
def _locked(settings: Settings, ran: RunInfo) -> Iterator[None]:
    """One process at a time completes a run; another waits, and finds it completed."""
    with locks.held(settings.runs / ran.id / "completing.lock"):
        yield


def _where(settings: Settings, ran: RunInfo, results: Sequence[StageResult], newest: str | None) -> str:
    """The lines of a run's commit message that say where it ran, and where each stage did if workers ran them."""
    here = environment.trailer(environment.describe(ran.workspace))
    if settings.stages == "here":
        return here
    current = [result.name for result in results if result.action == "current"]
    known = environment.of_stages(ran.workspace, newest, current) if newest else {}
    known |= {result.name: environment.parse(result.environment) for result in results if result.environment}
    return f"{here}\n{environment.stages_trailer(known)}"


def _is_tracked(root: Path, path: str) -> bool:
    """Whether a file that DVC does not cache is to be kept in git instead."""
    return (root / path).exists() and not repository.git(root, "check-ignore", "--", path, check=False)
