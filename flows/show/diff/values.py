"""A comparison of two releases as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flows.release.gates.numbers import Number
from flows.show.lineage.values import Data


@dataclass(frozen=True)
class Side:
    """One of the two releases, or the run whose models are a candidate for one."""

    family: str
    number: int | None  # None: not released
    run: str
    commit: str
    who: str
    why: str
    at: str
    restores: int | None

    @property
    def label(self) -> str:
        """What stands above its column."""
        return "candidate" if self.number is None else f"#{self.number}"

    @property
    def title(self) -> str:
        return f"{self.family} {self.label}"


@dataclass(frozen=True)
class Version:
    """A model as a release holds it."""

    number: int
    weights: str
    bundle: str
    tag: str


@dataclass(frozen=True)
class Member:
    """A model that at least one of the releases holds, with its numbers; `note` says why they are not judged."""

    model: str
    before: Version | None
    after: Version | None
    numbers: tuple[Number, ...] = ()
    note: str = ""

    @property
    def same(self) -> bool:
        before, after = self.before, self.after
        return bool(before and after and (before.number, before.weights) == (after.number, after.weights))


@dataclass(frozen=True)
class Parameter:
    """A parameter that differs; None where one side does not have it. `models`: those of the family that it reaches."""

    name: str
    before: Any
    after: Any
    models: tuple[str, ...]


@dataclass(frozen=True)
class DataPair:
    """The versions of one data stage that the models of each release were made from."""

    stage: str
    before: tuple[Data, ...]
    after: tuple[Data, ...]

    @property
    def same(self) -> bool:
        return {data.digest for data in self.before} == {data.digest for data in self.after}


@dataclass(frozen=True)
class Commit:
    hash: str
    subject: str


@dataclass(frozen=True)
class File:
    """A file that differs; None lines for a binary one."""

    path: str
    added: int | None
    removed: int | None


@dataclass(frozen=True)
class Code:
    """What lies between the two commits in data/, models/ and dvc.yaml."""

    gained: tuple[Commit, ...] = ()  # only in the code of the second
    lost: tuple[Commit, ...] = ()  # only in the code of the first
    files: tuple[File, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two releases of a family, or one and a candidate: `after` is measured against `before`.

    `notes` name what could not be had; `parameters` and `code` are None where a commit is out of reach.
    """

    before: Side
    after: Side
    members: tuple[Member, ...]
    parameters: tuple[Parameter, ...] | None
    data: tuple[DataPair, ...]
    code: Code | None
    notes: tuple[str, ...]
