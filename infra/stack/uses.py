"""What a person or another machine sets to use the stack: the containers' settings, with addresses from outside."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from infra.stack import compose
from infra.stack.places import PORTS

SETTINGS = Path("infra", "stack", "client.env")
USERS = {
    "releaser": "retrain and release",
    "worker": "join with a worker",
    "reader": "read what is in production",
    "photographer": "bring photographs",
}

Outside = Callable[[str], str]  # a text with addresses of the containers -> with those that hold elsewhere


def variables(root: Path, secrets: Path, user: str, outside: Outside) -> dict[str, str]:
    """Everything that a user of the stack has in the environment."""
    known = compose.variables_of(root / SETTINGS) | compose.variables_of(secrets / f"{user}.env")
    made = {key: outside(value) for key, value in known.items()}
    for tool, ours in (("PREFECT_API_URL", "REMINT_PREFECT_API"), ("MLFLOW_TRACKING_URI", "REMINT_MLFLOW_URI")):
        made[tool] = made[ours]  # for the tools' own commands
    return made


def text(values: dict[str, str]) -> str:
    """As a file of lines NAME=value, which `set -a; . FILE` and `docker run --env-file` read."""
    return "".join(f"{key}={value}\n" for key, value in values.items())


def at_host(host: str) -> Outside:
    """Addresses of the published ports of one machine."""
    return lambda value: _each(value, lambda name: f"{host}:{PORTS[name]}")


def at_domain(domain: str) -> Outside:
    """Addresses behind a proxy that ends TLS: https://mlflow.DOMAIN and so on; the database's without a proxy."""

    def secured(value: str) -> str:
        for name, port in PORTS.items():
            value = value.replace(f"http://{name}:{port}", f"https://{name}.{domain}")
        return _each(value, lambda name: f"{name}.{domain}:{PORTS[name]}")

    return secured


def _each(value: str, place: Callable[[str], str]) -> str:
    one = "|".join(f"{name}:{port}" for name, port in PORTS.items())
    return re.sub(rf"\b({one})\b", lambda found: place(found[1].partition(":")[0]), value)
