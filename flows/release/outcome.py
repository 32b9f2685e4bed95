"""What came of a run: its stages, what they cost, its models, its report. Values alone, which load nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flows.pipeline.run import RunInfo, StageResult
from flows.stage.spending import Spending

if TYPE_CHECKING:
    from flows.catalogue.alarms import Alarm
    from flows.catalogue.registered import Registered
    from flows.release.gates.compare import InProduction, Number
    from flows.release.gates.decision import Decision
    from flows.release.pointers import Pointer
    from flows.release.promote import FamilyOutcome
    from flows.stage.process import StageFailed


@dataclass(frozen=True)
class Release:
    """What became of a run's models."""

    registered: tuple[Registered, ...] = ()
    alarms: tuple[Alarm, ...] = ()  # stages that were seen with two outputs for one input
    bases: Mapping[str, Pointer | None] = field(default_factory=dict)  # by family, what was in production till now
    before: Mapping[str, InProduction] = field(default_factory=dict)  # and its models
    compared: Mapping[str, tuple[Number, ...]] = field(default_factory=dict)  # their numbers beside the run's
    decisions: tuple[Decision, ...] = ()
    outcomes: tuple[FamilyOutcome, ...] = ()  # by family


@dataclass
class RunOutcome:
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
