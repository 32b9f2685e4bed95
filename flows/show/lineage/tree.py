"""Lineage and traces as text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.show.columns import columns
from flows.show.lineage.values import Data, Holder, Lineage, Trace, Unknown
from flows.show.lineage.words import around, extent, price, ranges, setting, short, standing, verdict

WIDTH = 110
LABEL = 13  # columns of the names before the values
LISTED = 20  # data versions, and versions that were never released: more are only counted


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
