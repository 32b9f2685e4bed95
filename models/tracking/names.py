"""What parameters, metrics and runs are called in MLflow, whose pages group and cut names."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from models.metrics import METRICS


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into one with dotted names: {"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat


def grouped(key: str) -> str:
    """A metric as MLflow groups it, by what stands before a slash: "train_loss" is "train/loss"."""
    group, underscore, rest = key.partition("_")
    if underscore and group in ("train", "val"):
        return f"{group}/{rest}"
    return f"workload/{key}" if key.endswith("_per_second") else key  # below the losses: groups are sorted


def final(stage: str, values: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a stage's metrics.json that stand for all classes, by their names in MLflow.

    {"small": {"delta1": .9}} of an evaluation is {"eval/small/delta1": .9}; what a training measures on validation
    data is "val/...". The held-out numbers of a model are its evaluation's alone.
    """
    group = "eval" if stage.startswith("evaluate") else "val"
    flat = {name.replace(".", "/"): value for name, value in flatten(values).items()}
    named = {name: float(value) for name, value in flat.items() if name.rpartition("/")[2] in METRICS}
    return {f"{group}/{name}": value for name, value in named.items()}


def run_name(stage: str, run: str | None) -> str:
    """ "1127T1802 tokenizer-warmup": first when, as in the id of the flow's run, for MLflow's lists cut names short."""
    when = run[4:13] if run and run[8:9] == "T" else time.strftime("%m%dT%H%M", time.gmtime())
    return f"{when} {stage}"
