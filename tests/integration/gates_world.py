"""A small project for the gates: real bucket, catalogue, dvc.lock and evaluation command, with models of one number.

A model's config.json says how good it is; `evaluate.py` writes what the real evaluations write, from that number and
from the held-out samples, so that a test can foresee every metric.
"""

import hashlib
import json
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

from data.core.digests import sha256
from flows.catalogue import database
from flows.catalogue.registered import Registered
from flows.catalogue.schema import ModelVersion, Run
from flows.pipeline.families import evaluation_of, models_of
from flows.pipeline.run import RunInfo
from flows.release import bundle, pointers
from flows.release.gates.gate import decide_run
from flows.release.pointers import Member, Pointer
from flows.release.stores import Stores
from flows.settings import Settings
from flows.storage import bucket, protocol
from models.core.saved import weights_digest

EVALUATE = """
import argparse, json, pathlib, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
parser = argparse.ArgumentParser()
for name in ("model", "tokenizer", "scenes", "out"):
    parser.add_argument(f"--{name}", type=pathlib.Path)
a = parser.parse_args()
with open("evaluated.txt", "a") as log:
    log.write(f"{a.model} {a.tokenizer}\\n")
about = json.loads((a.model / "config.json").read_text())
if about.get("broken"):
    sys.exit("error: this code cannot load such a model")
scene = json.loads((a.scenes / "scene.json").read_text())
hard = np.random.default_rng(scene["seed"]).normal(scene["level"], 3.0, 200)
noise = np.random.default_rng(about["seed"]).normal(0, 0.5, 200)
a.out.mkdir(parents=True, exist_ok=True)
if a.tokenizer:
    seen = (np.random.default_rng(about["seed"]).random(200) < about["good"] / 100).astype(int)
    table = {"sample": np.arange(200), "class_asked": np.ones(200, int), "class_seen": seen}
    metrics = {"class_agreement": 100 * seen.mean(), "gfwd": 10.0}
else:
    psnr = hard + about["good"] + noise
    table = {"key": [f"scene-{i}" for i in range(200)], "class": ["room", "glass"] * 100, "psnr": psnr}
    metrics = {"psnr": psnr.mean()}
pq.write_table(pa.table(table), a.out / "per_sample.parquet")
(a.out / "metrics.json").write_text(json.dumps(metrics))
"""
ARTIFACTS = {"tokenizer": "artifacts/tokenizer/model", "maskgit": "artifacts/generator/maskgit/model"}
COMMANDS = {
    "tokenizer": "--model artifacts/tokenizer/model",
    "maskgit": "--model artifacts/generator/maskgit/model --tokenizer artifacts/tokenizer/model",
}
POLICY = {
    "tokenizer": {"required": ["psnr"], "margins": {"psnr": 0.2}, "max_bytes": 10_000, "validation": "required"},
    "maskgit": {"margins": {"class_agreement": 15}},
}


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout.strip()


@dataclass
class World:
    """One repository, whose folder is at the same time the workspace of every run."""

    root: Path
    settings: Settings

    @staticmethod
    def make(root: Path) -> "World":
        world = World(root, Settings(root=root))
        git(root, "init", "-q")
        for name, path in ARTIFACTS.items():
            (root / path).mkdir(parents=True)
            (root / "artifacts/evaluate" / name).mkdir(parents=True)
        (root / "artifacts/scenes").mkdir()
        (root / "artifacts/validate").mkdir()
        (root / "mlflow").mkdir()
        (root / ".dvc").mkdir()
        (root / ".dvc/config").write_text("")
        (root / "params.yaml").write_text("seed: 1\n")
        (root / "evaluate.py").write_text(EVALUATE)
        stages = {"evaluate": {"foreach": [*COMMANDS], "do": {"cmd": "true", "meta": {"timeout": 60}}}}
        artifacts = {name: {"path": path} for name, path in ARTIFACTS.items()}
        (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages, "artifacts": artifacts}))
        world.policy(POLICY)
        world.data(seed=1, level=20.0)
        git(root, "config", "user.name", "Ada")
        git(root, "config", "user.email", "ada@example.org")
        git(root, "add", "dvc.yaml", "params.yaml", ".dvc", "mlflow", "evaluate.py")
        git(root, "commit", "-q", "-m", "Start")
        return world

    @property
    def bucket(self) -> protocol.Bucket:
        return bucket.at(self.settings.production)

    @cached_property
    def catalogue(self) -> database.Catalogue:
        return database.open(self.settings)

    def policy(self, policy: dict) -> None:
        (self.root / "mlflow/promotion.yaml").write_text(yaml.safe_dump(policy))

    def data(self, **scene: float) -> None:
        """New held-out samples, validated."""
        (self.root / "artifacts/scenes/scene.json").write_text(json.dumps(scene))
        (self.root / "artifacts/validate/report.json").write_text(json.dumps({"success": True}))

    def lock(self) -> None:
        """dvc.lock as DVC would write it: what ran, on which digests."""
        scenes = self.tracked("artifacts/scenes")
        stages: dict = {
            "scenes": {"cmd": "true", "outs": [scenes]},
            "validate": {"cmd": "true", "deps": [scenes], "outs": []},
        }
        for name, path in ARTIFACTS.items():
            out = self.tracked(path)
            stages[name] = {"cmd": "true", "deps": [scenes], "outs": [out]}
            deps = [scenes, out, {"path": "evaluate.py", "md5": "code"}]
            stages[f"evaluate@{name}"] = {"cmd": self.command(name), "deps": deps, "outs": []}
        (self.root / "dvc.lock").write_text(yaml.safe_dump({"stages": stages}))

    def tracked(self, path: str) -> dict[str, str]:
        """A folder as dvc.lock names it; the list of its files lies in DVC's cache."""
        files = [file for file in sorted((self.root / path).iterdir()) if file.is_file()]
        text = json.dumps([{"md5": hashlib.md5(file.read_bytes()).hexdigest(), "relpath": file.name} for file in files])
        oid = f"{hashlib.md5(text.encode()).hexdigest()}.dir"
        kept = self.root / ".dvc/cache/files/md5" / oid[:2] / oid[2:]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(text)
        return {"path": path, "md5": oid}

    def command(self, name: str) -> str:
        return f"python evaluate.py {COMMANDS[name]} --scenes artifacts/scenes --out artifacts/evaluate/{name}"

    def train(self, number: int, tokenizer: float, maskgit: float = 75, **about) -> tuple[RunInfo, list[Registered]]:
        """A run whose models are as good as these numbers; evaluated, locked, and known to the catalogue."""
        parent = self.save("tokenizer", number, tokenizer, **about)
        self.save("maskgit", number, maskgit, tokenizer=parent)
        for name in COMMANDS:
            self.evaluate(self.command(name).split()[2:])
        (self.root / "evaluated.txt").unlink()
        self.lock()
        now = datetime.now(UTC)
        run = RunInfo(f"r{number}", f"run/r{number}", "c" * 40, "b" * 40, self.root, False, "p", now, "test")
        registered = [
            Registered(
                model,
                number,
                weights_digest(self.root / model.path),
                {"tokenizer": parent} if model.bound_to else {},
                evaluation_of(self.root, model),
                "m",
                tags={"git_tag": run.tag, "git_commit": run.commit, "dvc_lock": "d" * 64},
                config=sha256(self.root / model.path / "config.json"),
            )
            for model in models_of(self.root)
        ]
        self.note(run, registered)
        return run, registered

    def evaluate(self, words: list[str]) -> None:
        """The evaluation command in this process, which has its libraries loaded."""
        here, arguments = Path.cwd(), sys.argv
        os.chdir(self.root)
        sys.argv = ["evaluate.py", *words]
        try:
            runpy.run_path("evaluate.py")
        finally:
            os.chdir(here)
            sys.argv = arguments

    def save(self, name: str, seed: int, good: float, **about) -> str:
        folder = self.root / ARTIFACTS[name]
        save_file({"w": np.array([seed, good])}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"seed": seed, "good": good, **about}))
        return weights_digest(folder)

    def note(self, run: RunInfo, registered: list[Registered]) -> None:
        """What recording a run leaves in the catalogue."""
        with self.catalogue.begin() as session:
            same = {"tag": run.tag, "commit": run.commit, "base_commit": run.base_commit, "trigger": "test"}
            same |= {"parameters": "p", "environment": "e", "machine": "m", "state": "done"}
            number = registered[0].version
            session.add(Run(id=run.id, seq=number, started=run.started, ended=run.started, **same))
            session.flush()
            for one in registered:
                kept = {"family": one.model.family, "name": one.model.name, "number": one.version}
                kept |= {"weights": one.weights, "run_id": run.id, "mlflow_run": "m", "tag": ""}
                session.add(ModelVersion(**kept, metrics=dict(one.metrics), created=run.started))

    def release(self, run: RunInfo, registered: list[Registered]) -> None:
        """Put a run's models into production."""
        family, before = "images", pointers.newest(self.bucket, "images")
        members = []
        for one in sorted(registered, key=lambda one: one.model.name):
            tag = f"{one.model.name}@v{one.version}.0.0"
            digest = bundle.publish(self.bucket, bundle.pack(run, one, tag))
            members.append(Member(one.model.name, one.version, one.weights, tag, digest))
        pointer = Pointer(family, 1, tuple(members), run.id, run.commit, "Ada", "", "2026-01-01", "")
        if before is not None:
            pointer = replace(pointer, number=before.number + 1, previous=pointers.digest(before))
        pointers.append(self.bucket, pointer)

    def decide(self, run: RunInfo, registered: list[Registered]):
        bases = {family: pointers.newest(self.bucket, family) for family in {one.model.family for one in registered}}
        judged = decide_run(Stores(self.settings, self.catalogue, self.bucket), run, registered, bases)
        return {one.model: one for one in judged.decisions}

    def evaluated(self) -> list[str]:
        """Which models the evaluation command was called for since the last training."""
        log = self.root / "evaluated.txt"
        return log.read_text().splitlines() if log.exists() else []
