"""What came of a run: its stages, what they cost, its models, its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flows.release.of_run import Release
from flows.runs.values import RunInfo, StageResult
from flows.stage.spending import Spending

if TYPE_CHECKING:
    from flows.stage.process import StageFailed


@dataclass
class Outcome:
    """What came of a run; filled in while it goes, so that a run that is broken off still has its part."""

    run: RunInfo
    results: dict[str, StageResult] = field(default_factory=dict)  # by stage, in the order of their ends
    failures: dict[str, StageFailed] = field(default_factory=dict)
    broken: dict[str, StageResult] = field(default_factory=dict)  # stages that failed or were stopped
    unaffordable: dict[str, str] = field(default_factory=dict)  # stages that the budget did not let start, and why
    spending: Spending = field(default_factory=Spending)
    release: Release = field(default_factory=Release)
    report: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether every stage is up to date."""
        return not (self.failures or self.broken or self.unaffordable)
