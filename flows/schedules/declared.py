"""`infra/prefect.yaml` as typed, checked values: work pools, and the flows that start by themselves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.core import params
from data.core.params import UserError, near

if TYPE_CHECKING:
    from prefect import Flow

FILE = Path("infra/prefect.yaml")


@dataclass(frozen=True)
class Cron:
    """When to start: five fields of cron, in a time zone."""

    cron: str  # minute, hour, day of month, month, day of week
    timezone: str = "UTC"

    def __str__(self) -> str:
        return self.cron if self.timezone == "UTC" else f"{self.cron} {self.timezone}"


@dataclass(frozen=True)
class Pool:
    """A work pool. Its workers are started by `remint worker --pool NAME`."""

    description: str = ""


@dataclass(frozen=True)
class Deployment:
    """A flow that a worker of a pool runs, and when it starts."""

    name: str
    entrypoint: str  # module and function, "flows.schedules.deployed.retraining"
    work_pool: str
    description: str = ""
    schedules: tuple[Cron, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Declared:
    """The whole file."""

    work_pools: Mapping[str, Pool]
    deployments: tuple[Deployment, ...]


def read(path: Path) -> Declared:
    """The file at `path`; UserError names the entry that is wrong and what may have been meant."""
    values = params.read(path)
    for key in values:
        if key not in ("work_pools", "deployments"):
            raise UserError(f"{path}: {key} is not known here{near(key, ('work_pools', 'deployments'))}")
    pools = _section(values, "work_pools", dict, path)
    made = {str(name): _built(Pool, about or {}, f"{path}: work_pools.{name}") for name, about in pools.items()}
    entries = _section(values, "deployments", list, path)
    deployments = tuple(_deployment(entry, i, made, path) for i, entry in enumerate(entries))
    names = [one.name for one in deployments]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: two deployments are called {name}; a name stands for one")
    return Declared(made, deployments)


def load_flow(one: Deployment, path: Path) -> Flow[..., Any]:
    """The flow of a deployment, with its parameters checked. Imports Prefect."""
    from prefect import Flow

    module, _, function = one.entrypoint.rpartition(".")
    where = f"{path}: deployment {one.name}"
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{where}: entrypoint {one.entrypoint} cannot be imported ({error}); correct it") from None
    flow = getattr(loaded, function, None)
    if not isinstance(flow, Flow):
        flows = [name for name, value in vars(loaded).items() if isinstance(value, Flow)]
        raise UserError(f"{where}: {module} has no flow {function}{near(function, flows)}")
    known = flow.parameters.properties
    for key in one.parameters:
        if key not in known:
            raise UserError(f"{where}: parameters.{key} is not a parameter of {one.entrypoint}{near(key, known)}")
    try:
        flow.validate_parameters(dict(one.parameters))
    except Exception as error:  # Prefect's own kinds, whose words span lines
        words = " ".join(str(error).split()).partition(" For further")[0]
        raise UserError(f"{where}: {words}") from None
    return flow


def _section(values: Mapping[str, Any], name: str, kind: type, path: Path) -> Any:
    found = values.get(name) or kind()
    if not isinstance(found, kind):
        raise UserError(f"{path}: {name} must be a {'list' if kind is list else 'section'}, not {found!r}")
    return found


def _built(cls: type, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{where} must be a section of key: value lines, not {values!r}")
    return params.build(cls, values, where)


def _deployment(entry: Any, index: int, pools: Mapping[str, Pool], path: Path) -> Deployment:
    name = entry.get("name") if isinstance(entry, dict) else None
    where = f"{path}: deployment {name or index + 1}"
    made: Deployment = _built(Deployment, entry, where)
    if not made.name.replace("-", "").isalnum() or not made.name.isascii():
        raise UserError(f"{where}: a name has letters, digits and hyphens")
    if made.work_pool not in pools:
        raise UserError(f"{where}: no work pool {made.work_pool} in work_pools{near(made.work_pool, pools)}")
    if "." not in made.entrypoint or ":" in made.entrypoint:
        raise UserError(f"{where}: entrypoint {made.entrypoint} must name a module and a function, as flows.x.run")
    for one in made.schedules:
        _check(one, where)
    return made


def _check(schedule: Cron, where: str) -> None:
    """UserError if the schedule can never be followed."""
    from prefect.client.schemas.schedules import CronSchedule

    try:
        CronSchedule(cron=schedule.cron, timezone=schedule.timezone)
    except ValueError as error:
        words = str(error).splitlines()
        raise UserError(
            f"{where}: the schedule {schedule.cron!r} ({schedule.timezone}) cannot be read: "
            f"{words[2].strip().partition(' [type=')[0] if len(words) > 2 else words[0]}; "
            "cron has five fields: minute hour day-of-month month day-of-week"
        ) from None
