"""A small project with all four models and two recorded runs, made in seconds: what releases are tested on.

The models are a few numbers each, served by a class that gives back what it is given; graph, digests, tags, registry
and gates are the real ones.
"""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from data.core import manifest, samples, shards
from data.core.digests import sha256
from flows.pipeline import parameters, run, run_record
from flows.pipeline.run import RunInfo, StageResult
from flows.pipeline.store import Store
from flows.release import bundle, outcome, pointers, projections
from flows.release.stores import Stores
from flows.retrain import finalise
from flows.settings import Settings

ARTIFACTS = {
    "tokenizer": "artifacts/tokenizer/model",
    "maskgit": "artifacts/generator/maskgit/model",
    "depth-teacher": "artifacts/depth-teacher/model",
    "depth-small": "artifacts/depth-student/small/model",
}
SERVING = """\
import mlflow


class Toy(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input


mlflow.models.set_model(Toy())
"""
POLICY: dict[str, Any] = {"tokenizer": {"required": ["psnr"]}, "depth-small": {"thresholds": {"delta1": 0.5}}}
EVALUATED: dict[str, Any] = {
    "tokenizer": {"psnr": 21.0},
    "maskgit": {"gfwd": 0.2},
    "depth": {"teacher": {"delta1": 0.9}, "small": {"delta1": 0.8}},
}


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout.strip()


def project(root: Path) -> Settings:
    """A repository with graph, policy and code, in which nothing ever ran."""
    from dvc.repo import Repo

    root.mkdir(parents=True, exist_ok=True)
    git(root, "init", "-q")
    Repo.init(str(root)).close()
    scenes = "artifacts/scenes"
    trained = {
        name: {"cmd": "true", "deps": [scenes], "params": ["seed"], "outs": [path]} for name, path in ARTIFACTS.items()
    }
    graph = {
        "stages": {"scenes": {"cmd": "true", "deps": [".gitignore"], "outs": [scenes]}, **trained},
        "artifacts": {name: {"path": path, "type": "model"} for name, path in ARTIFACTS.items()},
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    (root / "params.yaml").write_text("seed: 0\n")
    (root / ".gitignore").write_text("/.remint/\n/artifacts/*\n!/artifacts/evaluate/\n")
    for name in ("data/__init__.py", "models/__init__.py", "mlflow/promotion.yaml"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    (root / "models/serving").mkdir()
    for name in ("tokenizer", "generator", "depth"):
        (root / f"models/serving/{name}.py").write_text(SERVING)
    (root / "mlflow/promotion.yaml").write_text(yaml.safe_dump(POLICY))
    _scenes(root / scenes)
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Start")
    return Settings(root=root)


def train(
    chosen: Settings,
    seed: int,
    evaluated: dict[str, Any] | None = None,
    keep: Collection[str] = (),
    again: Mapping[str, int] = MappingProxyType({}),
) -> RunInfo:
    """Record a run as the flow does when its stages are done: models of `seed`, in DVC's cache, under a tag.

    keep: models whose weights the run leaves as they are; a generator names the new tokenizer all the same.
    again: models that come out as an earlier run of that seed had them.
    """
    from dvc.repo import Repo

    root = chosen.root
    base = git(root, "rev-parse", "HEAD")
    (root / "params.yaml").write_text(f"seed: {seed}\n")
    for name, path in ARTIFACTS.items():
        weights = None if name in keep else again.get(name, seed)
        _model(root / path, name, weights, root / ARTIFACTS["tokenizer"])
    for name, values in (evaluated or EVALUATED).items():
        folder = root / "artifacts/evaluate" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(values))
    with contextlib.chdir(root), Repo(str(root)) as repo:
        repo.commit(force=True)
    started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seed)
    identifier = run.run_id(started, base)
    git(root, "add", "params.yaml", "artifacts/evaluate")
    git(root, "commit", "-q", "--allow-empty", "-m", f"{run.SET} {identifier}")
    head, digest = git(root, "rev-parse", "HEAD"), parameters.digest(root)
    ran = RunInfo(identifier, run.run_tag(identifier), head, base, root, False, digest, started, "retrain")
    store = Store(root)
    try:
        results = [StageResult(stage.name, "ran", 1.0) for stage in store.stages]
        return finalise.record(chosen, ran, store.stages, results)
    finally:
        store.close()


def finished(places: Stores, ran: RunInfo) -> outcome.Release:
    """Register, judge and release a recorded run, as the flow does."""
    noted = run_record.load(places.settings, ran.id)
    assert noted is not None
    done = finalise.complete(places, noted)
    assert done is not None
    return done[1]


def _model(folder: Path, name: str, seed: int | None, tokenizer: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if seed is not None:
        weights = np.random.default_rng([seed, *name.encode()]).normal(size=8).astype(np.float32)
        save_file({"weights": weights}, folder / "model.safetensors")
    about: dict[str, Any] = {"name": name}
    if name == "maskgit":
        about |= {"tokenizer": sha256(tokenizer / "model.safetensors"), "classes": ["room", "glass"]}
    (folder / "config.json").write_text(json.dumps(about))


def _scenes(folder: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    entries = shards.write(folder, "scenes", [("a", {"rgb.png": samples.encode_png(image)})], per_shard=1)
    about = {"source": "test", "licence": "CC0-1.0", "label": 0, "class_name": "room", "split": "val"}
    manifest.write([manifest.row(entries[0], image, **about)], folder)


def copied(template: Path, root: Path) -> Settings:
    """A copy of a project, to be changed by one test. MLflow's records still name the template's artifacts."""
    shutil.copytree(template, root, symlinks=True)
    return Settings(root=root)


def places_agree(places: Stores, family: str) -> int:
    """Assert that bucket, catalogue, MLflow and git say the same of a family; returns its newest release's number."""
    log = pointers.log(places.bucket, family)
    for name, compare in projections.PLACES.items():
        assert not compare(places, family, log), name
    for member in log[-1].members:
        assert bundle.read(places.bucket, member.model, member.bundle).weights == member.weights
    return log[-1].number
