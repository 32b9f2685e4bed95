"""Whether the same bytes can be expected of a reproduction, said before it starts, and what explains other ones.

A stage whose parameters name `portable` reckons with what libraries choose by the processor; no other stage does
(`tests/unit/test_data_on_any_processor.py`). In a graph from before there was `portable`, all do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.pipeline import environment
from flows.pipeline.environment import Difference, Environment
from flows.pipeline.graph import Stage

Environments = Mapping[str, Environment]  # by stage


def reasons(stages: Sequence[Stage], then: Environments, now: Environments) -> dict[str, list[Difference]]:
    """By stage, in what two environments differ that may change its bytes; only stages with both known."""
    marked = any("portable" in stage.params for stage in stages)
    found = {}
    for stage in stages:
        if stage.name in then and stage.name in now:
            every = environment.differences(then[stage.name], now[stage.name])
            at_risk = "portable" in stage.params or not marked
            found[stage.name] = [one for one in every if at_risk or not one.of_processor]
    return found


def beforehand(stages: Sequence[Stage], then: Environments, now: Environments) -> str:
    """One line: whether identity can be expected of the stages here, and why (not)."""
    known = reasons(stages, then, now)
    if not known:
        return "nothing can be said of whether bytes will be the same: where the run, or this one, works is not known"
    first = next((name for name, found in known.items() if found), None)
    if first is None:
        here = now[next(iter(known))]
        why = "portable: true, as then" if here.portable else f"{here.machine}, as then"
        return f"the same bytes are expected: the same packages; {why}"
    line = f"other bytes are likely from {first} on: {'; '.join(map(str, known[first]))}"
    if any(one.of_processor for one in known[first]):
        line += "; only what was trained with portable: true has the same on every processor"
    return line


def explanation(stage: str, stages: Sequence[Stage], then: Environments, now: Environments) -> str:
    """What explains that a stage gave other outputs from the same inputs."""
    found = reasons(stages, then, now).get(stage)
    if found is None:
        return "the run did not note where it ran, so the processor may explain it"
    if any(one.of_processor for one in found):
        return f"the processor explains it ({'; '.join(str(one) for one in found if one.of_processor)})"
    if found:
        return f"the processor does not explain it, but this may: {'; '.join(map(str, found))}"
    return (
        "the processor does not explain it, nor does anything else of the environment: the stage is not deterministic"
    )
