"""The models of the graph: dvc.yaml's `artifacts:` with what each family is evaluated on, bound to and served by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data.core.params import UserError, near
from models.core.saved import weights_digest


@dataclass(frozen=True)
class Model:
    """A model of the graph: an entry of dvc.yaml's `artifacts:`, with its family's facts."""

    name: str  # in the registry: "depth-small"
    path: Path  # its folder under the workspace: artifacts/depth-student/small/model
    desc: str
    stage: str  # the stage that trains it: "depth-student@small"
    family: str  # what it is released with: "images", "depth"
    serving: str  # its file in models/serving
    evaluation: str  # its folder in artifacts/evaluate
    section: str = ""  # its part of that metrics.json, "" for all of it
    bound_to: str | None = None  # the model without which it is useless: of one release, or of none
    learned_from: str | None = None  # a model that taught it and is not needed afterwards

    @property
    def evaluated(self) -> Path:
        """Where its evaluation lies under the workspace."""
        return Path("artifacts/evaluate") / self.evaluation


def models_of(root: Path) -> list[Model]:
    """The models that dvc.yaml at `root` names under `artifacts:`; UserError for a path of no known family."""
    return models_in((root / "dvc.yaml").read_text())


def models_in(text: str) -> list[Model]:
    """The models of a dvc.yaml that was read elsewhere, as from a commit."""
    graph = yaml.safe_load(text) or {}
    return [_describe(name, entry) for name, entry in (graph.get("artifacts") or {}).items()]


def evaluation_of(workspace: Path, model: Model) -> dict[str, float]:
    """The model's own numbers of the run's evaluation, {} where it was not evaluated."""
    path = workspace / model.evaluated / "metrics.json"
    return metrics_in(path, model) if path.exists() else {}


def metrics_in(path: Path, model: Model) -> dict[str, float]:
    """The model's own numbers of the metrics.json of an evaluation."""
    prefix = f"{model.section}." if model.section else ""
    return {key.removeprefix(prefix): v for key, v in read_metrics(path).items() if key.startswith(prefix)}


def parents_of(workspace: Path, model: Model) -> dict[str, str]:
    """Weights digests of the models it was made with. A generator's own config.json names its tokenizer."""
    if model.bound_to:
        config = json.loads((workspace / model.path / "config.json").read_text())
        return {model.bound_to: config[model.bound_to]}
    taught = {m.name: m.path for m in models_of(workspace)}.get(model.learned_from or "")
    return {str(model.learned_from): weights_digest(workspace / taught)} if taught else {}


def _describe(name: str, entry: Mapping[str, str]) -> Model:
    """Family facts by the folder that DVC's artifact lies in: artifacts/FOLDER[/KIND]/model."""
    path = Path(entry["path"])
    folder, kind = path.parts[1], "/".join(path.parts[2:-1])
    families: dict[str, dict[str, str]] = {
        "tokenizer": {"family": "images", "serving": "tokenizer", "evaluation": "tokenizer"},
        "generator": {"family": "images", "serving": "generator", "evaluation": kind, "bound_to": "tokenizer"},
        "depth-teacher": {"family": "depth", "serving": "depth", "evaluation": "depth", "section": "teacher"},
        "depth-student": {
            "family": "depth",
            "serving": "depth",
            "evaluation": "depth",
            "section": kind,
            "learned_from": "depth-teacher",
        },
    }
    if folder not in families:
        raise UserError(f"dvc.yaml: artifacts.{name}.path {path} is of no family{near(folder, families)}")
    stage = f"{folder}@{kind}" if kind else folder
    return Model(name, path, entry.get("desc", ""), stage, **families[folder])


def read_metrics(path: Path) -> dict[str, float]:
    """A metrics.json as one flat mapping: {"teacher": {"absrel": 0.1}} becomes {"teacher.absrel": 0.1}."""

    def flat(value: Any, prefix: str) -> dict[str, float]:
        if isinstance(value, Mapping):
            return {k: v for name, part in value.items() for k, v in flat(part, f"{prefix}{name}.").items()}
        if isinstance(value, bool) or not isinstance(value, int | float):
            return {}
        return {prefix.removesuffix("."): float(value)}

    return flat(json.loads(path.read_text()), "")
