"""A run before it starts, as a value: its commit, its stages, what is planned of them, its worktree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.pipeline.graph import Stage
from flows.pipeline.keys import Entry
from flows.pipeline.plan import Plan
from flows.pipeline.run import RunInfo
from flows.pipeline.store import Store
from flows.repository import Checkout
from flows.settings import Settings
from flows.stage.budget import Budget

if TYPE_CHECKING:
    from flows.stage.spending import Estimate


@dataclass(frozen=True)
class Again:
    """A reproduction on workers: its stages run whatever is known of them, and what they give counts for it alone."""

    proof: str  # names its attempts and its checkpoints
    given: Mapping[str, Entry]  # of dvc.lock, by stage: whose outputs are read as they are recorded
    variables: Mapping[str, Mapping[str, str]]  # by stage, thread counts and such as they were, where that is known


@dataclass(frozen=True)
class Job:
    """A run that is ready to start, or to be shown only."""

    settings: Settings
    checkout: Checkout
    run: RunInfo
    stages: tuple[Stage, ...]
    plan: Plan
    changes: Mapping[str, Any]  # parameters that recipe and --set changed
    environment: Mapping[str, str]  # for every process of the run
    store: Store
    budget: Budget = field(default_factory=Budget)
    estimates: Mapping[str, Estimate] = field(default_factory=dict)  # by stage that runs, where there is experience
    newest: str | None = None  # tag of the run whose dvc.lock the plan compares with; without one, HEAD's own
    check: Callable[[], None] = lambda: None  # raises if another process took the run over (flows.workers.claim)
    again: Again | None = None  # of a reproduction on workers

    @property
    def folder(self) -> Path:
        """What stays of the run on this machine: its record, logs and report."""
        return self.settings.runs / self.run.id
