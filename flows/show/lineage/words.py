"""Lineage in words: trees and traces for a terminal, and how they and pages write digests, sizes and parameters."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.show.columns import columns
from flows.show.lineage.values import Cost, Data, Holder, Lineage, Trace, Unknown
from flows.stage.spending import duration

WIDTH = 110
LABEL = 13  # columns of the names before the values
LISTED = 20  # data versions, and versions that were never released: more are only counted


def short(digest: str) -> str:
    """Twelve digits: what a person compares."""
    return digest.removesuffix(".dir")[:12]


def around(surroundings: Mapping[str, str]) -> str:
    """ "python CPython 3.11.2, torch 2.13.0+cpu, requirements.lock 1f0c9a...": a digest is cut, a version is not."""
    return ", ".join(f"{name} {short(value) if len(value) == 64 else value}" for name, value in surroundings.items())


def size(count: int) -> str:
    unit, factor = next(((u, f) for u, f in (("GB", 1e9), ("MB", 1e6)) if count >= f), ("kB", 1e3))
    return f"{count / factor:.{0 if unit == 'kB' else 1}f} {unit}"


def extent(data: Data) -> str:
    """ "2,240 rows, 21.3 MB", "" where nobody counted."""
    return "" if data.rows is None or data.bytes is None else f"{data.rows:,} rows, {size(data.bytes)}"


def price(cost: Cost) -> str:
    """ "22 min of machines, 31 min of CPU time, 9 stages; not known of photos"."""
    used = cost.spent
    times = {"machines": used.seconds, "CPU time": used.cpu_seconds, "GPUs": used.gpu_seconds}
    known = len(cost.stages) - len(cost.unknown)
    said = [f"{duration(seconds)} of {what}" for what, seconds in times.items() if seconds]
    said.append(f"{known} stage{'s' * (known != 1)}")
    return ", ".join(said) + (f"; not known of {', '.join(cost.unknown)}" if cost.unknown else "")


def verdict(data: Data) -> str:
    return "not in the catalogue" if data.verdict == "unrecorded" else f"validation {data.verdict}"


def ranges(numbers: Iterable[int]) -> str:
    """ "1, 3-7" for 1, 3, 4, 5, 6, 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def standing(lineage: Lineage) -> str:
    """Where a version stands: "in production, images release 4", "was in images releases 1-3", "never released"."""
    if lineage.now:
        return f"in production, {lineage.now.family} release {lineage.now.number}"
    if not lineage.releases:
        return "never released"
    numbers = [place.number for place in lineage.releases]
    return f"was in {lineage.releases[0].family} release{'s' * (len(numbers) > 1)} {ranges(numbers)}"


def setting(values: Mapping[str, Any]) -> str:
    """ "steps=1400, net.dim=128, net.taps=[0,2,3,4], seed=42": a value is never parted from its name."""
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    return f"[{','.join(map(_value, value))}]" if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Branch:
    """A line of the tree, and what hangs below it."""

    text: str
    below: tuple[Branch, ...] = ()


def text(lineage: Lineage, width: int = WIDTH) -> str:
    """A model version with everything that it was made from, as a tree."""
    root = branch(lineage)
    return "\n".join([root.text, *_drawn(root.below, "", width)])


def branch(lineage: Lineage) -> Branch:
    """A version as one branch; its parents are branches of the same shape."""
    made = lineage.made
    stages = dict(lineage.parameters)
    data = [_data(one, stages.pop(one.stage, None)) for one in lineage.data]
    where = Branch(around(made.surroundings)) if made.surroundings else None
    return Branch(
        f"{lineage.name}  {standing(lineage)}",
        (
            _fact("weights", f"{lineage.weights}{'  ' + lineage.tag if lineage.tag else ''}"),
            _fact("run", f"{made.tag}  {made.trigger}, {made.started:%Y-%m-%d %H:%M} UTC"),
            _fact("commit", f"{made.commit}  on {short(made.base_commit)}"),
            _fact("environment", f"{short(made.environment)}  {made.machine}", where),
            *([_fact("cost", price(lineage.cost))] if lineage.cost else []),
            _fact("parameters", short(made.parameters), *(_fact(s, setting(v), indent=2) for s, v in stages.items())),
            *data,
            *(_parent(parent) for parent in lineage.parents),
        ),
    )


def trace(found: Trace) -> str:
    """What contains something: those in production first; of the others only some, if there are many."""
    lines = [found.asked[:1].upper() + found.asked[1:]]
    newest = found.data[-LISTED:]
    lines += [f"  in {len(found.data)} data versions, the newest of them:"] if newest != found.data else []
    lines += [f"  in {one.stage} {one.digest}  {_about(one)}" for one in newest]
    lines += [f"  note: {note}" for note in found.notes]
    if not found.holders:
        return "\n".join([*lines, "", "No model version contains it."])
    now = found.in_production
    held = ", ".join(f"{one.model} v{one.version} ({one.family} release {one.now})" for one in now)
    lines += ["", f"In production now: {held or 'none that contains it'}."]
    once = [one for one in found.holders if one.releases and one.now is None]
    never = [one for one in found.holders if not one.releases]
    count = len(found.holders)
    lines += [f"{count:,} model version{'s' * (count != 1)} contain{'s' * (count == 1)} it:", ""]
    lines += [_table([*now, *once[:LISTED], *never[:LISTED]])]
    left = {"were in production once": len(once) - LISTED, "were never released": len(never) - LISTED}
    lines += [f"and {rest:,} more that {which} (--json lists them)" for which, rest in left.items() if rest > 0]
    return "\n".join(lines)


def _table(holders: Sequence[Holder]) -> str:
    rows = [
        (
            one.model,
            f"v{one.version}",
            f"through {', '.join(one.through[:3])}" if one.through else "directly",
            f"{one.family} {one.now}" if one.now is not None else "-",
            ranges(one.releases) or "-",
            one.run,
        )
        for one in holders
    ]
    return columns([("model", "version", "contains it", "in production", "releases", "run"), *rows])


def _parent(parent: Lineage | Unknown) -> Branch:
    if isinstance(parent, Lineage):
        return branch(parent)
    return Branch(f"{parent.model}  not in the catalogue", (_fact("weights", parent.weights),))


def _data(data: Data, parameters: Mapping[str, Any] | None) -> Branch:
    below = (Branch(setting(parameters)),) if parameters else ()
    return _fact(data.stage, f"{data.digest}  {_about(data)}", *below)


def _about(data: Data) -> str:
    before = f"after {short(data.before)}" if data.before else ""
    return ", ".join(part for part in (extent(data), verdict(data), before) if part)


def _fact(name: str, value: str, *below: Branch | None, indent: int = 0) -> Branch:
    return Branch(
        f"{name:<{LABEL - indent}}{value}" if len(name) < LABEL - indent else f"{name}  {value}",
        tuple(filter(None, below)),
    )


def _drawn(branches: Sequence[Branch], before: str, width: int) -> Iterator[str]:
    """Each branch with its lines; a long text goes on below its own beginning."""
    for branch in branches:
        last = branch is branches[-1]
        rest = before + ("   " if last else "│  ")
        hang = " " * LABEL if " " in branch.text[:LABEL] else "  "
        under = rest + ("│  " if branch.below else "   ")
        lines = textwrap.wrap(
            branch.text, max(width - len(before) - 3, 40), subsequent_indent=hang, break_long_words=False
        )
        yield before + ("└─ " if last else "├─ ") + (lines[0] if lines else "")
        yield from (under[: len(rest)] + line for line in lines[1:])
        yield from _drawn(branch.below, rest, width)
