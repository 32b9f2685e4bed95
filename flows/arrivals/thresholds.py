"""When photographs that arrived start a run; what commands, schedules and the watch itself take where nobody says."""

from __future__ import annotations

from dataclasses import dataclass

from data.core.params import UserError


@dataclass(frozen=True)
class Thresholds:
    """When retraining starts."""

    at_least: int = 100  # new photographs
    shift: float = 0.25  # population stability index of a column of the manifest
    confusion: float = 0.65  # probability that a new one confuses the student in production more than a held-out one

    def __post_init__(self) -> None:
        if self.at_least < 1 or self.shift <= 0 or not 0.5 < self.confusion <= 1:
            raise UserError("at_least must be 1 or more, shift above 0, and confusion above 0.5 and at most 1")
