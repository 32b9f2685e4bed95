"""The context of an evaluation: on which data, with which code and parameters a model's numbers were measured.

Two numbers are comparable only under one context. Where production's is another than the candidate's, production is
evaluated again: with the run's own command, code and data, and production's weights in the places of the candidate's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from data.core.digests import sha256
from data.core.params import UserError
from flows.pipeline import integrity
from flows.pipeline.families import Model, models_of
from flows.pipeline.integrity import Objects
from flows.pipeline.lock import read_lock
from flows.pipeline.plan import overlap
from flows.pipeline.workspace import cache
from flows.settings import Settings, child_environment
from flows.stage import confined
from models.core.saved import weights_digest

KEPT = ("metrics.json", "per_sample.parquet")


class EvaluationFailed(Exception):
    """Production could not be evaluated again; the message says why in one line."""


def context(workspace: Path, model: Model) -> str:
    """SHA-256 of what the model's evaluation in `workspace` rests on, "" where dvc.lock records none.

    That is the command, the parameters and every dependency of its `evaluate` stage but the released models
    themselves: held-out data, code, libraries. The proxy is part of it: it measures, and is not released.
    """
    entry = read_lock(workspace).get(f"evaluate@{model.evaluation}")
    if entry is None:
        return ""
    released = {one.path.as_posix() for one in models_of(workspace)}
    deps = {dep["path"]: dep["md5"] for dep in entry.get("deps", []) if dep["path"] not in released}
    whole = {"cmd": entry["cmd"], "params": entry.get("params", {}), "deps": deps}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def evaluate_again(settings: Settings, workspace: Path, model: Model, folders: Mapping[str, Path]) -> Path:
    """Evaluate models in the context of `model`'s evaluation in `workspace`; returns the folder with the results.

    folders: model name -> its folder, for all that stand in for the workspace's own; a model that is not named (one
    that production does not have yet) stays the workspace's. The results are kept in the home under the digests of
    context and models, so that this happens once. EvaluationFailed says why it did not work.
    """
    lock = read_lock(workspace)
    entry = lock.get(f"evaluate@{model.evaluation}")
    if entry is None:
        raise EvaluationFailed(f"dvc.lock records no evaluate@{model.evaluation}, so there is nothing to repeat")
    words = shlex.split(entry["cmd"] if isinstance(entry["cmd"], str) else " ".join(entry["cmd"]))
    stand_in = {one.path.as_posix(): folders.get(one.name) or workspace / one.path for one in models_of(workspace)}
    places = {path: folder.resolve() for path, folder in stand_in.items() if path in words}
    models = {path: (weights_digest(at), sha256(at / "config.json")) for path, at in sorted(places.items())}
    key = hashlib.sha256(json.dumps([context(workspace, model), models]).encode()).hexdigest()
    kept = settings.home / "evaluations" / key
    if not kept.is_dir():
        if settings.stages == "workers":
            _bring_inputs(settings, workspace, entry, lock)
        read = [dep["path"] for dep in entry["deps"]]
        integrity.check(workspace, lock, Objects(cache(settings)), lambda path: any(overlap(path, dep) for dep in read))
        with _beside(kept) as scratch:
            _run(settings, workspace, _command(words, places, scratch / "out"), scratch)
            (scratch / "kept").mkdir()
            for name in KEPT:
                if not (scratch / "out" / name).exists():
                    raise EvaluationFailed(f"evaluate@{model.evaluation} wrote no {name}")
                (scratch / "out" / name).rename(scratch / "kept" / name)
            with contextlib.suppress(OSError):  # another process was faster, with the same result
                (scratch / "kept").rename(kept)
    return kept


def _bring_inputs(
    settings: Settings, workspace: Path, entry: Mapping[str, Any], lock: Mapping[str, Mapping[str, Any]]
) -> None:
    """What the evaluation reads, with its shards, without which a workspace does where workers run the stages."""
    from flows.pipeline import outputs

    try:
        outputs.inputs(settings, workspace, entry, lock)
    except UserError as error:
        raise EvaluationFailed(str(error)) from None


@contextlib.contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A scratch folder on the target's disk, so that what is whole can be renamed to it."""
    folder = target.parent / f".{uuid.uuid4().hex}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _command(words: list[str], places: Mapping[str, Path], out: Path) -> list[str]:
    """The stage's command with production's models and another output folder; `python` is this one."""
    made = [str(places.get(word, word)) for word in words]
    if made[0] == "python":
        made[0] = sys.executable
    made[made.index("--out") + 1] = str(out)
    return made


def _run(settings: Settings, workspace: Path, command: list[str], scratch: Path) -> None:
    environment = child_environment(settings) | {
        "MLFLOW_TRACKING_URI": "",  # no run of a stage: not to be found as one
        "REMINT_CHECKPOINTS": str(scratch / "checkpoints"),
        "REMINT_ARRIVED": "",
    }
    limit = _time_limit(workspace)
    try:
        done = subprocess.run(
            confined.command(command),
            cwd=workspace,
            env=confined.variables(environment),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        raise EvaluationFailed(f"it took longer than {limit:g} s, the time limit of the stage") from None
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        last = said[-1].removeprefix("error: ") if said else f"exit code {done.returncode}"
        raise EvaluationFailed(last)


def _time_limit(workspace: Path) -> float | None:
    """The stage's own, from dvc.yaml."""
    stage = yaml.safe_load((workspace / "dvc.yaml").read_text()).get("stages", {}).get("evaluate", {})
    return stage.get("do", stage).get("meta", {}).get("timeout")
