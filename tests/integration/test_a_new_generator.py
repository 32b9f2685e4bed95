"""A kind of generator is its own folder and what the graph says of it: one is added to a checkout, works, and goes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from models.core.saved import weights_digest
from tests import tokenized

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration

PARAMS = '''
"""Parameters of the bigram."""
from dataclasses import dataclass
from typing import Annotated

from data.core.params import Range
from models.core.learning import Training, Width


@dataclass(frozen=True)
class Size:
    dim: Width


@dataclass(frozen=True)
class Sampling:
    temperature: Annotated[float, Range(0, 100)]


@dataclass(frozen=True, kw_only=True)
class Params(Training):
    net: Size
    sampler: Sampling
    weight_decay: Annotated[float, Range(0, 10)]
    label_drop: Annotated[float, Range(0, below=1)]
'''

GENERATOR = '''
"""A bigram: each token from the one before it and the class."""
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, *, codes: int, classes: int, length: int, dim: int) -> None:
        super().__init__()
        self.codes, self.length = codes, length
        self.before, self.label = nn.Embedding(codes + 1, dim), nn.Embedding(classes + 1, dim)
        self.blocks, self.head = nn.ModuleList([nn.Linear(dim, dim)]), nn.Linear(dim, codes)

    def start_from_codebook(self, codebook):
        pass

    def forward(self, tokens, labels):
        first = tokens.new_full((len(tokens), 1), self.codes)
        x = self.before(torch.cat([first, tokens[:, :-1]], 1)) + self.label(labels)[:, None]
        return self.head(torch.relu(self.blocks[0](x)))


def batch(net, tokens, labels, label_drop, random):
    return {"tokens": tokens, "labels": labels}


def step(net, batch, progress):
    logits = net(batch["tokens"], batch["labels"]).float()
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch["tokens"].flatten())
    right = (logits.argmax(-1) == batch["tokens"]).float().mean()
    return {"loss": loss, "nll": loss.detach(), "accuracy": right}


def sample(net, predict, labels, how, random):
    tokens = labels.new_zeros(len(labels), net.length)
    for place in range(net.length):
        odds = torch.softmax(predict(tokens, labels)[:, place].float() / how.temperature, -1)
        tokens[:, place] = torch.multinomial(odds, 1, generator=random)[:, 0]
    return tokens
'''

SECTION = {
    "net": {"dim": 8},
    "sampler": {"temperature": 1.0},
    **{"steps": 4, "batch": 8, "warmup": 1, "muon_lr": 0.01, "lr": 0.001, "weight_decay": 0.0},
    **{"label_drop": 0.1, "ema": 0.9, "clip": 1.0, "precision": "32-true"},
}


def python(root: Path, *words: str) -> str:
    """What a program of the checkout prints."""
    done = subprocess.run([sys.executable, *words], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


ASK = """
import json
from pathlib import Path
from dvc.repo import Repo
from flows.pipeline import families, graph
from flows.release.gates.policy import gates_of
from models import sections
from models.tracking.experiments import family_of

here = Path.cwd()
sections.check()
with Repo(".") as repo:
    stages = [one.name for one in graph.read(repo)]
models = {one.name: [one.family, one.stage, one.evaluation, one.bound_to] for one in families.models_of(here)}
gated = "bigram" in gates_of(here)
found = {"models": models, "stages": stages, "gated": gated, "experiment": family_of("evaluate@bigram")}
print(json.dumps(found))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The repository's code and graph, with scenes, a tokenizer and its tokens."""
    root = tmp_path / "checkout"
    root.mkdir()
    for name in ("data", "models", "flows"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "requirements.lock", "mlflow"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, root / name)
    for words in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run([sys.executable, "-m", *words] if words[0] == "dvc" else words, cwd=root, check=True)
    values = yaml.safe_load((root / "params.yaml").read_text())
    values["evaluate"]["maskgit"] = {"samples_per_class": 4, "probe_steps": 4, "probe_batch": 8}
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    tokenized.make_scenes(root / "scenes")
    tokenized.make_tokenizer(root / "tokenizer" / "model", seed=0)
    tokenized.make_tokens(root / "tokens", weights_digest(root / "tokenizer"))
    return root


CHANGED = ("dvc.yaml", "params.yaml", "mlflow/promotion.yaml")


def remove(root: Path) -> None:
    """Take everything back that `add` wrote."""
    shutil.rmtree(root / "models" / "bigram")
    for name in CHANGED:
        shutil.move(root / f"{name}.before", root / name)


def add(root: Path) -> None:
    """What somebody writes who adds a kind: its folder, and what the graph says of it."""
    for name in CHANGED:
        shutil.copyfile(root / name, root / f"{name}.before")
    own = root / "models" / "bigram"
    own.mkdir()
    for name, text in {"__init__": '"""A bigram."""\n', "params": PARAMS, "generator": GENERATOR}.items():
        (own / f"{name}.py").write_text(text)
    graph = yaml.safe_load((root / "dvc.yaml").read_text())
    graph["stages"]["generator"]["foreach"].append("bigram")
    other = graph["stages"]["evaluate"]["foreach"]["maskgit"]
    graph["stages"]["evaluate"]["foreach"]["bigram"] = json.loads(json.dumps(other).replace("maskgit", "bigram"))
    path = "artifacts/generator/bigram/model"
    graph["artifacts"]["bigram"] = {"path": path, "type": "model", "desc": "a bigram over TiTok tokens"}
    (root / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    values = yaml.safe_load((root / "params.yaml").read_text())
    values["generator"]["bigram"], values["evaluate"]["bigram"] = SECTION, dict(values["evaluate"]["maskgit"])
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    policy = yaml.safe_load((root / "mlflow" / "promotion.yaml").read_text())
    policy["bigram"] = json.loads(json.dumps(policy["maskgit"]))
    (root / "mlflow" / "promotion.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))


def test_a_new_kind_is_known_trained_drawn_from_and_gone_again(checkout: Path) -> None:
    before = python(checkout, "-c", ASK)
    add(checkout)
    known = json.loads(python(checkout, "-c", ASK))
    assert known["models"]["bigram"] == ["images", "generator@bigram", "bigram", "tokenizer"]
    assert {"generator@bigram", "evaluate@bigram"} <= set(known["stages"])
    assert (known["experiment"], known["gated"]) == ("generator", True)
    train = ["--tokens", "tokens", "--tokenizer", "tokenizer/model", "--kind", "bigram", "--out", "made"]
    python(checkout, "-m", "models.generator.train", *train)
    evaluate = ["--model", "made/model", "--tokenizer", "tokenizer/model", "--scenes", "scenes", "--out", "evaluated"]
    python(checkout, "-m", "models.generator.evaluate", *evaluate)
    assert (checkout / "made" / "figures" / "samples.png").exists()
    numbers = json.loads((checkout / "evaluated" / "metrics.json").read_text())
    assert {"gfwd", "precision", "recall", "class_agreement"} <= set(numbers)
    remove(checkout)
    assert python(checkout, "-c", ASK) == before
    assert json.loads(before)["experiment"] == "evaluate@bigram"  # one that nobody knows has its own


def test_a_section_of_a_kind_that_is_not_there_is_named(checkout: Path) -> None:
    values = yaml.safe_load((checkout / "params.yaml").read_text())
    values["generator"]["bigram"] = SECTION
    (checkout / "params.yaml").write_text(yaml.safe_dump(values))
    done = subprocess.run(
        [sys.executable, "-m", "models.sections"], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: generator: 'bigram' is not a kind of generator; known: llama, maskgit, samba\n",
    )
