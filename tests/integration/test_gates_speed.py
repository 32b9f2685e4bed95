"""How long a picture takes: candidate and production in one process, with real models of every kind."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.release.gates.speed import Pair, measure
from models.core import saved
from models.depth import net as depth
from models.generator.load import build, config
from models.maskgit.params import Sampling
from models.tokenizer.tokenizer import Tokenizer

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "MLFLOW_TRACKING_URI": ""}


def tokenizer(folder: Path, layers: int) -> str:
    titok = {"image_size": 64, "patch": 8, "width": 64, "encoder_layers": layers, "decoder_layers": layers, "heads": 2}
    titok |= {"latents": 8, "token_dim": 4, "codes": 8, "proxy_grid": 16, "proxy_codes": 8}
    parts: dict[str, Any] = {"titok": titok, "pixels": {"channels": [8, 8], "blocks": 1, "stem": 2, "code_dim": 4}}
    saved.write(folder, Tokenizer(**parts).state_dict(), parts)
    return str(folder)


def generator(folder: Path, parent: str) -> str:
    shape = {"codes": 8, "classes": 3, "length": 8, "dim": 8, "depth": 1, "heads": 1}
    sampling = Sampling(steps=2, guidance=1.0, decay="linear", temperature=1.0)
    about = config("maskgit", shape, sampling, ["room", "glass", "wires"], saved.weights_digest(parent))
    saved.write(folder, build("maskgit", shape).state_dict(), about)
    return str(folder)


def student(folder: Path) -> str:
    net = depth.build(
        image_size=16, patch_size=8, dim=8, layers=4, heads=1, taps=(1, 2, 3, 4), factors=(4, 2, 1, 0.5),
        neck=(4, 4, 4, 4), fusion=4, head=4,
    )  # fmt: skip
    saved.write(folder, net.state_dict(), depth.config_of(net))
    return str(folder)


def test_pairs_are_timed_in_turns_and_a_broken_one_does_not_hide_the_others(tmp_path):
    torch.manual_seed(0)
    small, large = tokenizer(tmp_path / "small", 1), tokenizer(tmp_path / "large", 8)
    drawn = generator(tmp_path / "maskgit", small)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text(json.dumps({"titok": {}}))
    pairs = [
        Pair("tokenizer", "tokenizer", large, small),
        Pair("twin", "tokenizer", small, small),
        Pair("maskgit", "generator", drawn, drawn, small, small),
        Pair("depth-small", "depth", student(tmp_path / "depth")),
        Pair("broken", "tokenizer", str(broken)),
    ]
    found = measure(ROOT, pairs, ENVIRONMENT)
    assert found["tokenizer"].candidate > 2 * found["tokenizer"].production  # eight times the layers
    assert 1 / 1.5 < found["twin"].candidate / found["twin"].production < 1.5  # the limit of the committed policy
    assert found["maskgit"].candidate > 0
    assert found["maskgit"].production > 0
    assert found["depth-small"].candidate > 0
    assert found["depth-small"].production is None
    assert "model.safetensors does not exist" in found["broken"].problem


def test_nothing_to_measure_starts_no_process(monkeypatch):
    monkeypatch.setattr("subprocess.run", None)
    assert measure(ROOT, [], {}) == {}


def test_a_process_that_fails_or_hangs_is_said_for_every_pair(tmp_path, monkeypatch):
    pairs = [Pair("tokenizer", "tokenizer", "a"), Pair("maskgit", "generator", "b")]
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here')")
    found = measure(tmp_path, pairs, ENVIRONMENT)
    assert {one.problem for one in found.values()} == {"not measured: ImportError: no torch here"}
    (tmp_path / "torch.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr("flows.release.gates.speed.LIMIT", 0.5)
    assert {one.problem for one in measure(tmp_path, pairs, ENVIRONMENT).values()} == {
        "not measured: measuring took longer than 0.5 s"
    }


def test_a_run_of_before_flows_had_rooms_is_measured_by_the_code_of_its_commit(tmp_path):
    (tmp_path / "flows" / "gates").mkdir(parents=True)
    said = "{'tokenizer': {'candidate': 2.0, 'production': 1.0}}"
    (tmp_path / "flows" / "gates" / "speed.py").write_text(f"import json\nprint(json.dumps({said}))\n")
    found = measure(tmp_path, [Pair("tokenizer", "tokenizer", "a", "b")], ENVIRONMENT)
    assert (found["tokenizer"].candidate, found["tokenizer"].production) == (2.0, 1.0)
