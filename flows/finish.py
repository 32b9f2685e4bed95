"""What a run does once its stages are done, each step a plain function: record, register, release, report.

The run's tag comes first: what the registry names can then always be made again from git. `journal` notes how far
a run has come, so that a run that was interrupted between its tag and its release is finished by the next one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import environment, repository, run, workspace
from flows.graph import Stage
from flows.run import RunInfo, StageResult
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.promotion import Decision, InProduction
    from flows.registry import Registered


@dataclass(frozen=True)
class Release:
    """What became of a run's models."""

    registered: tuple["Registered", ...] = ()
    decisions: tuple["Decision", ...] = ()
    before: Mapping[str, "InProduction"] = field(default_factory=dict)  # what was in production until now
    tags: tuple[str, ...] = ()  # tokenizer@v1.0.0


def record(settings: Settings, ran: RunInfo, stages: Sequence[Stage]) -> RunInfo:
    """Commit dvc.lock in the run's worktree, tag the commit, and return the run with its commit."""
    workspace.order_lock(ran.workspace, [stage.name for stage in stages])
    kept = [path for stage in stages for path in stage.metrics if _is_tracked(ran.workspace, path)]
    message = f"Record the results of run {ran.id}\n\n{environment.trailer(environment.describe(ran.workspace))}"
    commit = repository.commit(ran.workspace, message, ["dvc.lock", *kept], allow_empty=True)
    done = replace(ran, commit=commit)
    repository.tag(ran.workspace, ran.tag, f"Run {ran.id} of {ran.base_commit[:7]} ({ran.trigger})", commit)
    journal(settings, done, finished=False)
    return done


def with_tracking(settings: Settings, ran: RunInfo, results: Sequence[StageResult]) -> tuple[StageResult, ...]:
    """The results with the ids of the MLflow runs that the stages left."""
    from models import tracking

    client, _ = tracking.connect(settings.mlflow_uri)
    if client is None:
        return tuple(results)
    experiments = [found.experiment_id for found in client.search_experiments()]
    tracked = client.search_runs(experiments, f"tags.{tracking.RUN} = '{ran.id}'", order_by=["start_time ASC"])
    ids = {found.data.tags.get(tracking.STAGE): found.info.run_id for found in tracked}
    return tuple(replace(result, mlflow_run_id=ids.get(result.name)) for result in results)


def register(settings: Settings, ran: RunInfo) -> Release:
    """Register the run's models and decide about each, releasing nothing yet."""
    from flows import promotion, registry
    from models import tracking

    registered = registry.register_models(ran, settings)
    client, _ = tracking.connect(settings.mlflow_uri)
    before = promotion.production(client, [one.model.name for one in registered])
    decisions = promotion.decide(registered, ran, settings)
    return Release(tuple(registered), tuple(decisions), before)


def release(settings: Settings, ran: RunInfo, made: Release) -> Release:
    """Move the aliases of what was decided to go to production, and tag the versions in git."""
    from flows import promotion, versions

    promotion.apply(made.decisions, ran, settings)
    return replace(made, tags=tuple(versions.tag_versions(made.registered, made.decisions, ran, settings)))


def report(settings: Settings, ran: RunInfo, results: Sequence[StageResult], made: Release) -> Path:
    """Put the run's report where it stays when the worktree is gone."""
    from flows import report as pages

    return pages.write(ran, results, made.decisions, made.registered, settings, made.before)


def journal(settings: Settings, ran: RunInfo, *, finished: bool) -> None:
    """Note how far a run has come."""
    folder = settings.runs / ran.id
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"run": run.to_json(ran), "finished": finished}, indent=1)
    scratch = folder / "run.json.new"
    scratch.write_text(text)
    scratch.replace(folder / "run.json")


def unfinished(settings: Settings, tag: str | None) -> RunInfo | None:
    """The newest run, if it was recorded here but its models were never registered and released."""
    if tag is None:
        return None
    try:
        noted: dict[str, Any] = json.loads((settings.runs / tag.removeprefix("run/") / "run.json").read_text())
    except FileNotFoundError:
        return None  # a run of another machine
    return None if noted["finished"] else run.from_json(noted["run"])


def _is_tracked(root: Path, path: str) -> bool:
    """Whether a file that DVC does not cache is to be kept in git instead."""
    return (root / path).exists() and not repository.git(root, "check-ignore", "--", path, check=False)
