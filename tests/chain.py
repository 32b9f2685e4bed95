"""A small chain that really runs: all four models, each stage about a second, the same bytes every time.

What is tested on it is everything around the stages: order, workers, releases, what becomes of a run when parts of
it die. A training counts its steps aloud and takes `pace` seconds for each, so that there is time to disturb it.
"""

import json
from pathlib import Path

import yaml

from flows.settings import Settings
from tests import released

STAGE = '''\
"""A stage: reads its inputs, counts its steps, writes a model, data or metrics that follow from what it read."""
import hashlib, json, sys, time
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

kind, name, out, *inputs = sys.argv[1:]
params = yaml.safe_load(Path("params.yaml").read_text())
read = hashlib.sha256(f"{name} {params['seed']}".encode())
for path in sorted(p for i in inputs for p in [Path(i), *Path(i).rglob("*")] if p.is_file()):
    read.update(path.read_bytes())
for step in range(params["steps"]):
    print(f"{name}  step {step + 1}/{params['steps']}", flush=True)
    time.sleep(params["pace"])
random = np.random.default_rng(list(read.digest()))
out = Path(out)
out.mkdir(parents=True, exist_ok=True)
if kind == "scenes":
    from data.core import manifest, samples, shards

    image = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    entries = shards.write(out, "scenes", [("a", {"rgb.png": samples.encode_png(image)})], per_shard=1)
    about = {"source": "test", "licence": "CC0-1.0", "label": 0, "class_name": "room", "split": "val"}
    manifest.write([manifest.row(entries[0], image, **about)], out)
elif kind == "model":
    save_file({"weights": random.normal(size=8).astype(np.float32)}, out / "model.safetensors")
    about = {"name": name}
    if name == "maskgit":
        weights = Path(inputs[-1], "model.safetensors").read_bytes()
        about |= {"tokenizer": hashlib.sha256(weights).hexdigest(), "classes": ["room", "glass"]}
    (out / "config.json").write_text(json.dumps(about))
else:
    values = json.loads(Path("evaluated.json").read_text())[name]
    (out / "metrics.json").write_text(json.dumps(values))
'''


def make(root: Path, pace: float = 0.1, steps: int = 5) -> Settings:
    """A repository whose HEAD has the chain, ready for `remint retrain`."""
    chosen = released.project(root)
    (root / ".gitignore").write_text("/.remint/\n/artifacts/\n__pycache__/\n")
    (root / "stage.py").write_text(STAGE)
    (root / "evaluated.json").write_text(json.dumps(released.EVALUATED))
    (root / "params.yaml").write_text(f"seed: 1\npace: {pace}\nsteps: {steps}\n")
    (root / "dvc.yaml").write_text(yaml.safe_dump(_graph(), sort_keys=False))
    released.git(root, "add", "-A")
    released.git(root, "commit", "-q", "-m", "A chain that runs")
    return chosen


def _graph() -> dict:
    scenes, models = "artifacts/scenes", released.ARTIFACTS
    inputs = {
        "tokenizer": [scenes],
        "maskgit": [scenes, models["tokenizer"]],
        "depth-teacher": [scenes],
        "depth-small": [scenes, models["depth-teacher"]],
    }
    judged = {
        "tokenizer": [models["tokenizer"]],
        "maskgit": [models["maskgit"], models["tokenizer"]],
        "depth": [models["depth-teacher"], models["depth-small"]],
    }
    stages = {"scenes": _stage("scenes", "scenes", scenes, [], "cpu")}
    for name, read in inputs.items():
        stages[name] = _stage("model", name, models[name], read, "gpu") | {"params": ["seed", "steps", "pace"]}
    for name, read in judged.items():
        made = _stage("evaluate", name, f"artifacts/evaluate/{name}", [scenes, *read], "cpu")
        made["deps"].append("evaluated.json")
        made["metrics"] = [f"artifacts/evaluate/{name}/metrics.json"]
        del made["outs"]
        stages[f"evaluate-{name}"] = made
    return {"stages": stages, "artifacts": {name: {"path": path, "type": "model"} for name, path in models.items()}}


def _stage(kind: str, name: str, out: str, inputs: list[str], pool: str) -> dict:
    return {
        "cmd": " ".join(["python stage.py", kind, name, out, *inputs]),
        "deps": ["stage.py", *inputs],
        "params": ["seed"],
        "outs": [out],
        "meta": {"pool": pool, "retries": 1, "timeout": 120},
    }
