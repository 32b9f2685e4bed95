"""The promotion policy that params.yaml names, as typed, checked values: one gate per model."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.core.params import UserError, build, near, read
from flows import repository
from flows.pipeline import families, parameters
from models.metrics import METRICS, metric

PATTERN = "promotion*.yaml"
POLICY = Path("mlflow/promotion.yaml")  # of commits whose params.yaml names none
REQUIRED = "required"  # the one word that `validation` and `approval` take


@dataclass(frozen=True)
class Latency:
    """Limits on the time of one picture: in milliseconds, and as a multiple of production's in the same minute."""

    milliseconds: float | None = None
    ratio: float | None = None

    @property
    def asked(self) -> bool:
        return self.milliseconds is not None or self.ratio is not None


@dataclass(frozen=True)
class Gate:
    """One model's section of the policy; limits and margins in each metric's own direction and unit."""

    required: tuple[str, ...] = ()
    thresholds: dict = field(default_factory=dict)  # metric -> limit
    margins: dict = field(default_factory=dict)  # metric -> by how much it may be worse than production's
    max_bytes: int | None = None  # of model.safetensors
    latency: Latency = Latency()
    validation: str | None = None
    approval: str | None = None


def gates_of(root: Path) -> dict[str, Gate]:
    """The gates of a commit that is checked out at `root`; UserError for whatever is wrong with its policy."""
    return read_policy(root / policy_file(root), [model.name for model in families.models_of(root)])


def gates_at(root: Path, commit: str) -> dict[str, Gate]:
    """The gates of a commit that git has; none where its policy cannot be read, as by a newer code than its own."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            lay_out(root, commit, Path(scratch))
            for name in ("dvc.yaml", parameters.FILE.as_posix()):
                (Path(scratch) / name).write_text(repository.file_at(root, commit, name) or "")
            return gates_of(Path(scratch))
    except UserError:
        return {}


def lay_out(root: Path, commit: str, there: Path) -> None:
    """Put a commit's policies in place of those that lie in the folder `there`."""
    for old in (there / POLICY.parent).glob(PATTERN):
        old.unlink()
    (there / POLICY.parent).mkdir(exist_ok=True)
    names = repository.git(root, "ls-tree", "--name-only", commit, f"{POLICY.parent}/").splitlines()
    for name in (one for one in names if Path(one).match(PATTERN)):
        (there / name).write_text(repository.file_at(root, commit, name) or "")


def policy_file(root: Path) -> Path:
    """The file, below `root`, that the commit's params.yaml names as its policy."""
    there = (root / parameters.FILE).exists()
    named = parameters.read(root).get("policy", POLICY.as_posix()) if there else POLICY.as_posix()
    known = sorted(path.relative_to(root).as_posix() for path in (root / POLICY.parent).glob(PATTERN))
    if named not in known:
        raise UserError(f"{parameters.FILE}: policy '{named}' is none of this commit's{near(named, known)}")
    return Path(named)


def read_policy(path: Path, models: Iterable[str]) -> dict[str, Gate]:
    """Read the promotion policy; UserError names file, field and value of whatever is unknown or of a wrong type."""
    known = list(models)
    gates = {}
    for name, section in read(path).items():
        if name not in known:
            raise UserError(f"{path}: '{name}' is not a model of dvc.yaml{near(name, known)}")
        if section is not None and not isinstance(section, dict):
            raise UserError(f"{path}: '{name}' must be a section of key: value lines, not {section!r}")
        gate = build(Gate, section or {}, where=f"{path}: {name}")
        _check(gate, f"{path}: {name}")
        gates[str(name)] = gate
    return gates


def _check(gate: Gate, where: str) -> None:
    """Metrics must be declared, limits finite numbers, margins and sizes not negative."""
    for name in gate.required:
        _metric(name, f"{where}.required")
    for part in ("thresholds", "margins"):
        limits: Mapping[str, Any] = getattr(gate, part)
        for name, value in limits.items():
            _metric(name, f"{where}.{part}")
            _number(value, f"{where}.{part}.{name}")
    for name, margin in gate.margins.items():
        if margin < 0:
            raise UserError(
                f"{where}.margins.{name} must be at least 0, not {margin!r}: it is how much worse than production's "
                "a candidate's may be"
            )
    positive = {"max_bytes": gate.max_bytes, "latency.milliseconds": gate.latency.milliseconds}
    for name, limit in {**positive, "latency.ratio": gate.latency.ratio}.items():
        if limit is not None and _number(limit, f"{where}.{name}") <= 0:
            raise UserError(f"{where}.{name} must be more than 0, not {limit!r}")
    for name, word in {"validation": gate.validation, "approval": gate.approval}.items():
        if word not in (None, REQUIRED):
            raise UserError(f"{where}.{name} must be '{REQUIRED}' or left out, not '{word}'{near(word, [REQUIRED])}")


def _metric(name: Any, where: str) -> None:
    try:
        metric(str(name))
    except KeyError:
        raise UserError(f"{where}: '{name}' is not a metric{near(name, METRICS)}") from None


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{where} must be a number, not {value!r}")
    return value
