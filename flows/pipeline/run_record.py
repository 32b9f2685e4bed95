"""Records of runs on this machine: how far each has come, so that one that died before its release is completed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.core.params import UserError
from flows import repository, state
from flows.pipeline import run, workspace
from flows.pipeline.run import RunInfo, StageResult
from flows.settings import Settings

RECORD = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """What this machine noted of a run."""

    run: RunInfo
    results: tuple[StageResult, ...]
    finished: bool


def save(settings: Settings, ran: RunInfo, results: Sequence[StageResult], *, finished: bool) -> None:
    """Note how far a run has come."""
    values = {"run": run.to_json(ran), "results": [run.result_to_json(one) for one in results], "finished": finished}
    state.write(settings.runs / ran.id / RECORD, values)


def load(settings: Settings, identifier: str) -> RunRecord | None:
    """What this machine noted of a run, None if it ran on another; UserError if the note is damaged."""
    path = settings.runs / identifier / RECORD

    def made(values: dict[str, Any]) -> RunRecord:
        results = tuple(run.result_from_json(one) for one in values.get("results", []))
        found = RunRecord(run.from_json(values["run"]), results, values["finished"] is True)
        if found.run.id != identifier:
            raise ValueError(f"it is of run {found.run.id}")
        return found

    return state.read(path, made, f"git and the catalogue know the run without it: rm '{path}', then: remint doctor")


def unfinished(settings: Settings, damaged: Callable[[str, UserError], None] | None = None) -> list[RunRecord]:
    """Every run that was recorded here and died before its models were registered and released, the oldest first.

    damaged: told the id of each run whose note is damaged, and why; without it that is an error.
    """
    living = workspace.living(settings)
    folders = sorted(path.parent.name for path in settings.runs.glob(f"*/{RECORD}"))
    left = []
    for name in folders:
        try:
            left.append(load(settings, name) if name not in living else None)
        except UserError as error:
            if damaged is None:
                raise
            damaged(name, error)
    return [one for one in left if one and not one.finished and _has_tag(settings, one.run)]


def _has_tag(settings: Settings, ran: RunInfo) -> bool:
    return (
        repository.git(settings.root, "rev-parse", "-q", "--verify", f"{ran.tag}^{{commit}}", check=False) == ran.commit
    )
