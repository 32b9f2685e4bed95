"""Lineage and traces as plain values: `Lineage` looks down from a model, `Trace` looks up to models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flows.stage.spending import Usage


@dataclass(frozen=True)
class Data:
    """A data version; `rows` and `bytes` are None where the catalogue does not know it."""

    stage: str
    digest: str  # DVC's, as in dvc.lock
    rows: int | None = None
    bytes: int | None = None
    verdict: str = "unrecorded"  # of validation
    before: str = ""  # digest of the version before it


@dataclass(frozen=True)
class Made:
    """The run that made a version."""

    run: str
    tag: str
    commit: str
    base_commit: str
    trigger: str
    started: datetime
    parameters: str  # sha256 of params.yaml
    environment: str  # sha256 of the environment's description: the worker's, where one ran the model's stage
    machine: str
    surroundings: Mapping[str, str] = field(default_factory=dict)  # Python, torch, ... where the commit tells


@dataclass(frozen=True)
class Place:
    """A release that holds a version; `now`: it is the one in production."""

    family: str
    number: int
    now: bool


@dataclass(frozen=True)
class Cost:
    """What it cost to make a model: every stage that it needs, its data and its parents' too, each once."""

    spent: Usage
    stages: tuple[str, ...]
    unknown: tuple[str, ...] = ()  # stages of which the catalogue does not know what they cost


@dataclass(frozen=True)
class Unknown:
    """A parent that the catalogue does not know: only what the child's edge says."""

    model: str
    weights: str


@dataclass(frozen=True)
class Lineage:
    """A model version, down to everything it was made from."""

    model: str
    version: int
    family: str
    weights: str
    tag: str  # in git, "" until it is tagged
    made: Made
    parameters: Mapping[str, Mapping[str, Any]]  # of its own stages and of its data, by stage
    data: tuple[Data, ...]
    parents: tuple[Lineage | Unknown, ...]
    releases: tuple[Place, ...]
    problems: tuple[str, ...] = ()  # what of this cannot be proved any more: a moved tag, a lost commit
    cost: Cost | None = None  # None where the commit or every one of its stages is unknown

    @property
    def name(self) -> str:
        return f"{self.model} v{self.version}"

    @property
    def now(self) -> Place | None:
        """The release in which it is in production, None if it is not."""
        return next((place for place in self.releases if place.now), None)


@dataclass(frozen=True)
class Holder:
    """A model version that contains what was asked for."""

    model: str
    version: int
    family: str
    weights: str
    run: str
    through: tuple[str, ...]  # parents by which it came in: "depth-teacher v3"; () if directly
    releases: tuple[int, ...]  # of its family, rising
    now: int | None  # the release in production, if it is in it


@dataclass(frozen=True)
class Trace:
    """What was asked for and everything that contains it: those in production first, then by model and version."""

    asked: str
    data: tuple[Data, ...]
    holders: tuple[Holder, ...]
    notes: tuple[str, ...] = ()

    @property
    def in_production(self) -> tuple[Holder, ...]:
        return tuple(holder for holder in self.holders if holder.now is not None)


def every(lineage: Lineage) -> list[Lineage]:
    """A model and, below it, its parents and theirs, each once."""
    found = {lineage.name: lineage}
    for parent in lineage.parents:
        if isinstance(parent, Lineage):
            found |= {one.name: one for one in every(parent) if one.name not in found}
    return list(found.values())


def problems(lineage: Lineage) -> list[str]:
    """Every problem of a model and of its parents, each once."""
    return list(dict.fromkeys(problem for one in every(lineage) for problem in one.problems))
