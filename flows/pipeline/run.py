"""What one run is and what came out of it: the values that the last steps of a run are given.

    RunInfo      which commit ran, where, with which parameters
    StageResult  what happened to one stage
    Usage        what it cost

`flows.retrain.job` and `flows.retrain.scheduler` make them; the registry, the promotion and the report only read them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows.stage.spending import Usage
from models.report.words import FAMILIES

# The first of these that a stage reports is the one shown; the others are in MLflow and in the report.
HEADLINES = (*(family.headline for family in FAMILIES), "abs_rel", "motorcycle_delta1")
RECORDED, SET = "Record the results of run", "Set the parameters of run"  # its commits begin with, before its id
BROKEN = ("failed", "stopped", "skipped")  # actions of stages of which dvc.lock knows only earlier runs


@dataclass(frozen=True)
class RunInfo:
    """One run of the graph.

    `commit` holds exactly what ran: the code of `base_commit`, the run's `params.yaml` and the `dvc.lock` that
    the run produced. The annotated tag `tag` keeps it. `workspace` is a git worktree at that commit with every
    output in place; it exists only until the run ends.
    """

    id: str  # 20261121T012434Z-1a2b3c4: UTC start and short hash of base_commit
    tag: str  # run/<id>
    commit: str  # 40 hex digits
    base_commit: str  # what the user had as HEAD
    workspace: Path
    dirty: bool  # the user's checkout had uncommitted changes, which are not part of the run
    parameters: str  # sha256 of params.yaml as it ran
    started: datetime  # UTC
    trigger: str  # what asked for the run: "retrain", "schedule", ...


@dataclass(frozen=True)
class StageResult:
    """What happened to one stage.

    `action` is one of "ran", "restored" (from the run cache), "current" (nothing to do), "failed", "stopped" (ended
    before it was done, and goes on in the next run), "skipped" (a stage before it failed). `metrics` is the stage's
    metrics.json with nested names joined by dots.
    """

    name: str  # as in dvc.yaml, "generator@maskgit"
    action: str
    seconds: float  # wall time of the stage in this run, 0.0 if it did not run
    metrics: Mapping[str, float] = field(default_factory=dict)
    mlflow_run_id: str | None = None  # the tracking run of the stage, if it logged one in this run
    log: Path | None = None  # everything the stage printed
    usage: Usage | None = None  # what all attempts at it cost, None where nothing was attempted
    host: str = ""  # where it ran, "" for this machine
    environment: str = ""  # the same, as flows.pipeline.environment writes it


def run_id(started: datetime, base_commit: str) -> str:
    """The id of a run: sorts by time, names the commit."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{base_commit[:7]}"


def started_at(identifier: str) -> datetime | None:
    """When a run started, by its id; None of what is no run's id."""
    try:
        return datetime.strptime(identifier.partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def run_tag(identifier: str) -> str:
    """The git tag that keeps a run's commit."""
    return f"run/{identifier}"


def to_json(run: RunInfo) -> dict[str, Any]:
    """A run as plain JSON values; `from_json` reads it back."""
    return asdict(run) | {"workspace": str(run.workspace), "started": run.started.isoformat()}


def from_json(values: Mapping[str, Any]) -> RunInfo:
    """The inverse of `to_json`."""
    plain = dict(values)
    plain["workspace"] = Path(plain["workspace"])
    plain["started"] = datetime.fromisoformat(plain["started"])
    return RunInfo(**plain)


def result_to_json(result: StageResult) -> dict[str, Any]:
    """A stage's result as plain JSON values; `result_from_json` reads it back."""
    return asdict(result) | {"log": str(result.log) if result.log else None}


def result_from_json(values: Mapping[str, Any]) -> StageResult:
    """The inverse of `result_to_json`."""
    usage = Usage(**values["usage"]) if values.get("usage") else None
    return StageResult(**{**values, "log": Path(values["log"]) if values["log"] else None, "usage": usage})


def headline(metrics: Mapping[str, float]) -> str | None:
    """The metric that says most about a stage; of a student and its teacher the student's."""
    order = [key for name in HEADLINES for key in metrics if key.split(".")[-1] == name]
    students = [key for key in order if not key.startswith("teacher.")]
    losses = [key for key in metrics if key == "val_loss"]
    return next(iter([*students, *order, *losses]), None)
