"""`docker-compose.yml` as values: what each service runs, with which variables, after whom, and when it is well.

Only what this project's file uses of the format; a schema test holds the file to the published specification.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from data.core.params import UserError

FILE = "docker-compose.yml"
SECRETS = ".secrets"


@dataclass(frozen=True)
class Health:
    """A command that succeeds when a service is well, and the seconds after which it is given up."""

    command: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Service:
    """One service."""

    name: str
    image: str
    command: tuple[str, ...] = ()  # entry point and command; () for the image's own
    environment: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()  # of variables, as the file names them; their content is in `environment`
    health: Health | None = None
    after: Mapping[str, str] = field(default_factory=dict)  # service -> condition
    mounts: Mapping[str, str] = field(default_factory=dict)  # path inside -> volume, or ./path of the checkout
    ports: Mapping[int, str] = field(default_factory=dict)  # port inside -> address:port outside
    profiles: tuple[str, ...] = ()


def read(root: Path, secrets: Path | None = None, variables: Mapping[str, str] = os.environ) -> dict[str, Service]:
    """The services of a checkout's file, in the order in which they are to start.

    secrets: the folder that stands for `.secrets`; UserError if a file in it is missing.
    """
    values = yaml.safe_load((root / FILE).read_text())
    known = {
        name: _service(name, _filled(entry, variables), root, secrets) for name, entry in values["services"].items()
    }
    return {name: known[name] for name in _ordered(known)}


def variables_of(path: Path) -> dict[str, str]:
    """The variables in a file of lines NAME=value; UserError if it is not there."""
    if not path.exists():
        raise UserError(f"{path} does not exist; make it: make stack-secrets")
    made = {}
    for number, line in enumerate(map(str.strip, path.read_text().splitlines()), 1):
        if line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            if not equals:
                raise UserError(f"{path}, line {number}: it has no =; lines are NAME=value or begin with #")
            made[name] = value
    return made


def _service(name: str, entry: Mapping[str, Any], root: Path, secrets: Path | None) -> Service:
    environment: dict[str, str] = {}
    for file in entry.get("env_file", []):
        path = root / file
        if secrets is not None and Path(file).parts[0] == SECRETS:
            path = secrets / Path(file).name
        environment |= variables_of(path)
    environment |= {key: str(value) for key, value in (entry.get("environment") or {}).items()}
    mounts = [mount.split(":") for mount in entry.get("volumes", [])]
    ports = [port.rsplit(":", 1) for port in entry.get("ports", [])]
    return Service(
        name=name,
        image=entry["image"],
        command=(*entry.get("entrypoint", []), *entry.get("command", [])),
        environment=environment,
        files=tuple(entry.get("env_file", [])),
        health=_health(entry.get("healthcheck", {})),
        after={other: how["condition"] for other, how in (entry.get("depends_on") or {}).items()},
        mounts={inside: outside for outside, inside, *_ in mounts},
        ports={int(inside): outside for outside, inside in ports},
        profiles=tuple(entry.get("profiles", [])),
    )


def _health(entry: Mapping[str, Any]) -> Health | None:
    if not entry or entry.get("disable"):
        return None
    kind, *command = entry["test"]
    assert kind == "CMD", entry["test"]
    period, interval = (float(entry[name].removesuffix("s")) for name in ("start_period", "interval"))
    return Health(tuple(command), period + entry["retries"] * interval)


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    """${NAME:-default} and $$ replaced, everywhere."""
    if isinstance(value, str):
        filled = re.sub(
            r"\$\$|\$\{(\w+)(?::-([^}]*))?\}",
            lambda found: "$" if found[0] == "$$" else variables.get(found[1]) or found[2] or "",
            value,
        )
        return filled
    if isinstance(value, Mapping):
        return {key: _filled(entry, variables) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_filled(entry, variables) for entry in value]
    return value


def _ordered(known: Mapping[str, Service]) -> list[str]:
    found: list[str] = []

    def visit(name: str) -> None:
        for other in known[name].after:
            visit(other)
        if name not in found:
            found.append(name)

    for name in known:
        visit(name)
    return found
