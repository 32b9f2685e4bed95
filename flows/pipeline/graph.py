"""The stage graph as a value, read from DVC's own index of `dvc.yaml`.

`dvc.yaml` is the only statement of the graph. This module turns what DVC makes of it (foreach expanded, templates
filled, edges found) into small frozen dataclasses; the plan, the flow and the tables know only these.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.core.params import UserError, near

if TYPE_CHECKING:
    from dvc.repo import Repo


@dataclass(frozen=True)
class Meta:
    """What only an orchestrator needs, from a stage's `meta:` block."""

    pool: str = "cpu"  # which kind of machine
    retries: int = 0  # how often a failed stage is tried again
    timeout: float | None = None  # seconds
    model: str | None = None  # the registered model this stage trains
    parts: bool = False  # its shards can be made one by one, by several workers (REMINT_PART)


@dataclass(frozen=True)
class Stage:
    """One stage of the graph; paths are relative to the repository's root."""

    name: str
    cmd: str
    deps: tuple[str, ...] = ()
    params: tuple[str, ...] = ()  # dotted keys of params.yaml
    outs: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()  # metrics files, among the outs or inside them
    meta: Meta = field(default_factory=Meta)
    upstream: tuple[str, ...] = ()  # stages whose outs this one reads, in the graph's order


def read(repo: "Repo") -> tuple[Stage, ...]:
    """All stages of a DVC repository in the order in which `dvc repro` would run them.

    UserError where dvc.yaml is not valid: DVC's own words, which name file and line.
    """
    from dvc.exceptions import DvcException
    from dvc.repo.reproduce import get_active_graph, plan_repro

    try:
        graph = repo.index.graph
        order = [stage for stage in plan_repro(get_active_graph(graph)) if getattr(stage, "name", None)]
        metrics = sorted("/".join(key) for key in repo.index.metric_keys["repo"])
    except DvcException as error:
        raise UserError(_words(error)) from None
    root = Path(repo.root_dir)
    position = {stage.name: place for place, stage in enumerate(order)}
    return tuple(_stage(stage, graph, position, root, metrics) for stage in order)


def downstream(stages: Iterable[Stage], names: Iterable[str]) -> set[str]:
    """Every stage that reads, directly or not, what one of `names` writes; `stages` in topological order."""
    reached = set(names)
    for stage in stages:
        if reached.intersection(stage.upstream):
            reached.add(stage.name)
    return reached - set(names)


def upstream(stages: Iterable[Stage], names: Iterable[str]) -> set[str]:
    """Every stage that one of `names` needs, directly or not; `stages` in topological order."""
    needed = set(names)
    for stage in reversed(list(stages)):
        if stage.name in needed:
            needed.update(stage.upstream)
    return needed - set(names)


def chain_lengths(stages: Iterable[Stage]) -> dict[str, int]:
    """How many stages the longest chain behind each stage has: what holds up the most work is started first."""
    ordered = list(stages)
    lengths = {stage.name: 0 for stage in ordered}
    for stage in reversed(ordered):
        for before in stage.upstream:
            lengths[before] = max(lengths[before], lengths[stage.name] + 1)
    return lengths


def _stage(stage: Any, graph: Any, position: Mapping[str, int], root: Path, metrics: list[str]) -> Stage:
    from dvc.dependency import ParamsDependency

    outs = tuple(_relative(out, root) for out in stage.outs)
    return Stage(
        name=stage.name,
        cmd=stage.cmd if isinstance(stage.cmd, str) else "\n".join(stage.cmd),
        deps=tuple(_relative(dep, root) for dep in stage.deps if not isinstance(dep, ParamsDependency)),
        params=tuple(key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params),
        outs=outs,
        metrics=tuple(path for path in metrics if any(path == out or path.startswith(f"{out}/") for out in outs)),
        meta=_meta(stage.name, stage.meta),
        upstream=tuple(
            sorted(
                {s.name for s in graph.successors(stage) if getattr(s, "name", None) in position},
                key=position.__getitem__,
            )
        ),
    )


def _meta(name: str, values: Mapping[str, Any] | None) -> Meta:
    known = {f.name for f in fields(Meta)}
    for key in values or {}:
        if key not in known:
            raise UserError(f"dvc.yaml: stage '{name}': meta.{key} is not known{near(key, known)}")
    return Meta(**(values or {}))


def _relative(item: Any, root: Path) -> str:
    """A dep or out as a path below the root; one that lies outside stays as it was written."""
    path = Path(item.fs_path)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(item.def_path)


def _words(error: BaseException) -> str:
    """DVC's message with its cause, as one line."""
    parts = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        parts.append(str(error))
    return " ".join(" ".join(part for part in parts if part).split())
