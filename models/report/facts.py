"""What only a run of the flow knows, as plain values: the page shows it when it is given."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from models.report.graph import Graph


@dataclass(frozen=True)
class StageRow:
    """One stage of the run: `action` is "ran", "restored", "current", "failed" or "skipped"."""

    name: str
    action: str
    seconds: float
    headline: str = ""


@dataclass(frozen=True)
class Compared:
    """One metric of a new model and of the one it met in production (None where there was none).

    says: "better", "worse", "within noise", "within margin", "same"; "" where noise is not known.
    """

    metric: str
    candidate: float
    production: float | None = None
    says: str = ""


@dataclass(frozen=True)
class Rule:
    """One promotion rule in words ("psnr >= production - 0.2"), what the candidate showed, and the limit."""

    name: str
    passed: bool
    candidate: float | str | None
    limit: float | str | None


@dataclass(frozen=True)
class Verdict:
    """What became of one registered version, in words; `replaces` is the version it met in production."""

    model: str
    version: int
    state: str  # "in production now", "refused", "waits for approval"
    produces: bool  # it is in production
    reason: str
    replaces: int | None = None
    compared: tuple[Compared, ...] = ()
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Version:
    """A registered version and what it was made from: {parent or data: digest}."""

    model: str
    version: int
    weights: str
    parents: tuple[tuple[str, str], ...] = ()
    data: tuple[tuple[str, str], ...] = ()
    new: bool = True


@dataclass(frozen=True)
class Cost:
    """What the run cost, in words: headings, a row per stage (its name first), and their sum."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    whole: tuple[str, ...]


@dataclass(frozen=True)
class RunFacts:
    """A run of the flow: its commit (with tag and digest of dvc.lock), graph, stages, verdicts and versions.

    The graph is here because dvc.yaml cannot be an input of one of its own stages.
    """

    run_id: str
    commit: str
    tag: str
    lock_digest: str
    seconds: float
    graph: Graph
    stages: tuple[StageRow, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    releases: tuple[str, ...] = ()  # a line for each family: what became of it
    versions: tuple[Version, ...] = ()
    cost: Cost | None = None
    docs: str = ""  # where the Data Docs lie, seen from the page; "" if they are gone
    lineage: Markup | None = None  # a drawing: the data, commits and parents that the versions came from
