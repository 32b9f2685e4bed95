"""What a run would do, and why, before it does it: a plan is a value that can be printed and tested.

    make(stages, world) -> Plan

For each stage the plan says "current" (what dvc.lock records is what a run would give, and is in the cache),
"restore" (an earlier run had exactly these inputs, and the run cache has its outputs) or "run". Behind a stage
that runs nothing can be known for certain: what follows it is planned to run, and is skipped or restored at its
time if the new outputs turn out to have the old bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from flows.pipeline.graph import Stage

Action = Literal["run", "restore", "current"]
SHOWN = 6  # reasons listed per stage; the rest is counted


@dataclass(frozen=True)
class Recorded:
    """One execution of a stage as dvc.lock and the run cache record it; hashes by path, params by dotted key."""

    cmd: str
    deps: Mapping[str, str | None] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    outs: Mapping[str, str] = field(default_factory=dict)


class World(Protocol):
    """What a plan asks of the repository; `flows.pipeline.store.Store` is the real one."""

    def recorded(self, stage: Stage) -> Recorded | None:
        """The stage's entry of dvc.lock."""

    def content(self, stage: Stage, dep: str, produced: Mapping[str, str]) -> str | None:
        """Hash of a dep as the stage would read it; `produced` has the outs before it. None: not there."""

    def params(self, stage: Stage) -> Mapping[str, Any]:
        """The stage's parameters as they are now."""

    def lacking(self, outs: Mapping[str, str]) -> str:
        """Why the cache does not hold all these outputs, in words; "" if it does."""

    def remembered(self, stage: Stage, deps: Mapping[str, str | None]) -> Recorded | None:
        """An earlier execution with the present command, params and these deps, if its outputs are stored."""


@dataclass(frozen=True)
class Step:
    """What is planned for one stage."""

    stage: str
    action: Action
    reasons: tuple[str, ...] = ()

    def why(self) -> str:
        """The reasons in one line, the first few in full."""
        rest = len(self.reasons) - SHOWN
        return "; ".join(self.reasons[:SHOWN]) + (f"; and {rest} more" if rest > 0 else "")


@dataclass(frozen=True)
class Plan:
    """One step for each stage, in the order of the graph."""

    steps: tuple[Step, ...]
    known: Mapping[str, str] = field(default_factory=dict)  # outputs that are there before the run, with their hashes

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return all(step.action == "current" for step in self.steps)

    def action(self, stage: str) -> Action:
        return next(step.action for step in self.steps if step.stage == stage)

    def to_json(self) -> list[dict[str, Any]]:
        return [{"stage": s.stage, "action": s.action, "reasons": list(s.reasons)} for s in self.steps]


def make(stages: Sequence[Stage], world: World) -> Plan:
    """The plan for `stages` (in topological order) in the present state of the repository."""
    steps: list[Step] = []
    produced: dict[str, str] = {}  # outs whose content is known before the run, with their hashes
    pending: dict[str, str] = {}  # outs that will be known only when the stage named here has run
    for stage in stages:
        step, outs = _step(stage, world, produced, pending)
        steps.append(step)
        produced |= outs
        if step.action == "run":
            pending |= dict.fromkeys(stage.outs, stage.name)
    return Plan(tuple(steps), produced)


def _step(
    stage: Stage, world: World, produced: Mapping[str, str], pending: Mapping[str, str]
) -> tuple[Step, Mapping[str, str]]:
    entry = world.recorded(stage)
    waits = {dep: [name for out, name in pending.items() if overlap(dep, out)] for dep in stage.deps}
    deps = {dep: world.content(stage, dep, produced) for dep in stage.deps if not waits[dep]}
    before = dict.fromkeys(name for names in waits.values() for name in names)
    reasons = [*differences(stage, entry, world.params(stage), deps), *(f"after {name}" for name in before)]
    if before:
        return Step(stage.name, "run", tuple(reasons)), {}
    if entry is not None and not reasons:
        lacking = world.lacking(entry.outs)
        if not lacking:
            return Step(stage.name, "current"), entry.outs
        reasons = [lacking]
    earlier = world.remembered(stage, deps)
    if earlier is not None:
        return Step(stage.name, "restore", tuple(reasons)), earlier.outs
    return Step(stage.name, "run", tuple(reasons)), {}


def overlap(one: str, other: str) -> bool:
    """Whether two paths are the same or one lies in the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def differences(
    stage: Stage, entry: Recorded | None, params: Mapping[str, Any], deps: Mapping[str, str | None]
) -> Iterator[str]:
    """Each way in which a stage now differs from its recorded execution, as a short text."""
    if entry is None:
        yield "has never run"
        return
    if entry.cmd != stage.cmd:
        yield "its command changed"
    yield from _param_differences(flat(entry.params), flat(params))
    for dep, content in deps.items():
        if content is None:
            yield f"{dep} is missing"
        elif dep not in entry.deps:
            yield f"{dep} is a new dependency"
        elif entry.deps[dep] != content:
            yield f"{dep} changed"
    yield from (f"{dep} is no dependency any more" for dep in entry.deps if dep not in stage.deps)
    if set(entry.outs) != set(stage.outs):
        yield "its outputs are other paths"


def _param_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*old, *new]):
        if key not in old:
            yield f"{key}: new, {new[key]}"
        elif key not in new:
            yield f"{key}: {old[key]} -> removed"
        elif old[key] != new[key]:
            yield f"{key}: {old[key]} -> {new[key]}"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as dotted keys."""
    made: dict[str, Any] = {}
    for key, value in values.items():
        made |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return made
