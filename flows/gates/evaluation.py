"""The context of an evaluation: on which data, with which code and parameters a model's numbers were measured.

Two numbers are comparable only under one context.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import yaml

from flows.families import Model, models_of


def context(workspace: Path, model: Model) -> str:
    """SHA-256 of what the model's evaluation in `workspace` rests on, "" where dvc.lock records none.

    That is the command, the parameters and every dependency of its `evaluate` stage but the released models
    themselves: held-out data, code, libraries. The proxy is part of it: it measures, and is not released.
    """
    return _digest(workspace, model.evaluation)


def _digest(workspace: Path, evaluation: str) -> str:
    path = workspace / "dvc.lock"
    stages = (yaml.safe_load(path.read_text()) or {}).get("stages", {}) if path.exists() else {}
    entry = stages.get(f"evaluate@{evaluation}")
    if entry is None:
        return ""
    released = {one.path.as_posix() for one in models_of(workspace)}
    deps = {dep["path"]: dep["md5"] for dep in entry.get("deps", []) if dep["path"] not in released}
    whole = {"cmd": entry["cmd"], "params": entry.get("params", {}), "deps": deps}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()
