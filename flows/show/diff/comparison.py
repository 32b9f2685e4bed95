"""A comparison of two releases: its values, and its text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.release.gates.compare import Number
from flows.show.columns import columns
from flows.show.lineage.values import Data
from flows.show.lineage.words import extent, short, verdict
from models.report.charts import number

LISTED = 12  # commits and files of each kind, before they are counted


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
class Step:
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
    code: Step | None
    notes: tuple[str, ...]


def text(found: Comparison) -> str:
    """Members and metrics, then parameters, data and code; parts without a difference are one line."""
    before, after = found.before, found.after
    parts = [
        "\n".join([_side(before), _side(after)]),
        *(_member(member, before, after) for member in found.members),
        _parameters(found.parameters),
        "\n".join(_data(found.data)),
        "\n".join(_code(found.code)),
    ]
    notes = [f"note: {note}" for note in found.notes]
    return "\n\n".join([part for part in [*parts, "\n".join(notes)] if part])


def title(member: Member) -> str:
    """ "maskgit v1 -> v2", "tokenizer v1, the same in both", "samba v1, only in the first"."""
    if member.before is None or member.after is None:
        held, which = (member.before, "first") if member.before else (member.after, "second")
        return f"{member.model} v{held.number if held else '?'}, only in the {which}"
    if member.same:
        return f"{member.model} v{member.after.number}, the same in both"
    return f"{member.model} v{member.before.number} -> v{member.after.number}"


def interval(one: Number) -> str:
    """ "[-0.12, +0.31]", "" where there is none."""
    return "" if one.low is None or one.high is None else f"[{signed(one.low)}, {signed(one.high)}]"


def signed(value: float | None) -> str:
    if value is None:
        return ""
    return ("+" if value > 0 else "−" if value < 0 else "±") + number(abs(value))


def about(data: Data) -> str:
    return f"{short(data.digest)} ({', '.join(part for part in (extent(data), verdict(data)) if part)})"


def plain(value: Any) -> str:
    """A parameter's value as text; an absent one is a dash."""
    return "-" if value is None else str(value)


def _side(side: Side) -> str:
    restored = f", restores #{side.restores}" if side.restores else ""
    by = f", by {side.who}" if side.who else ""
    return f"{side.title}  {side.run}, commit {side.commit[:12]}{by}{restored}: {side.why}"


def _member(member: Member, before: Side, after: Side) -> str:
    head = title(member)
    if member.same or not member.numbers:
        return "\n".join([head, *([f"  {member.note}"] if member.note and not member.same else [])])
    shown = [one for one in member.numbers if one.whole] or list(member.numbers)
    lines = [(f"  {one.metric}", *_cells(one)) for one in shown]
    headings = ("  metric", before.label, after.label, "change", "95 % interval", "")
    note = [f"  {member.note}"] if member.note else []
    return "\n".join([head, columns([headings, *lines], right=(1, 2, 3)), *note])


def _cells(one: Number) -> tuple[str, str, str, str, str]:
    old, new = ("-" if value is None else number(value) for value in (one.before, one.after))
    says = one.says or (f"{one.better} is better" if one.better else "")
    return old, new, signed(one.difference), interval(one), says


def _parameters(found: Sequence[Parameter] | None) -> str:
    if found is None:
        return "Parameters are not compared."
    if not found:
        return "No parameter differs."
    lines = [(f"  {p.name}", plain(p.before), plain(p.after), ", ".join(p.models) or "no model here") for p in found]
    return columns([("parameter", "before", "after", "reaches"), *lines])


def _data(found: Sequence[DataPair]) -> Iterator[str]:
    for pair in found:
        if pair.same:
            yield f"{pair.stage}: the same, {', '.join(map(about, pair.after))}"
        else:
            old, new = (", ".join(map(about, side)) or "none" for side in (pair.before, pair.after))
            yield f"{pair.stage}: {old} -> {new}"


def _code(found: Step | None) -> Iterator[str]:
    if found is None:
        yield "Code is not compared."
        return
    if not found.files and not found.gained and not found.lost:
        yield "No code in data/, models/ or dvc.yaml differs."
        return
    added, removed = (sum(getattr(file, name) or 0 for file in found.files) for name in ("added", "removed"))
    files = f"{len(found.files)} file{'s' * (len(found.files) != 1)}"
    yield f"Code in data/, models/ and dvc.yaml: {files}, +{added} −{removed} lines"
    yield from _some([f"  + {commit.hash[:9]} {commit.subject}" for commit in found.gained], "commits")
    yield from _some([f"  − {commit.hash[:9]} {commit.subject}" for commit in found.lost], "commits")
    yield from _some([f"    {file.path} {lines(file.added, file.removed)}" for file in found.files], "files")


def lines(added: int | None, removed: int | None) -> str:
    return "binary" if added is None or removed is None else f"+{added} −{removed}"


def _some(texts: Sequence[str], what: str) -> Iterator[str]:
    yield from texts[:LISTED]
    if len(texts) > LISTED:
        yield f"    and {len(texts) - LISTED} more {what} (--json lists them)"
