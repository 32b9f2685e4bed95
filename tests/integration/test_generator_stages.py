"""The generator's stages from tokens to evaluation, as their commands run them, at a size of seconds."""

import json
import multiprocessing
import os
import runpy
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from data.core import manifest, shards
from data.core.samples import encode_disparity, encode_png
from models.core.saved import weights_digest
from models.metrics import metric
from models.tokenizer.tokenizer import Tokenizer
from tests import code

pytestmark = pytest.mark.integration

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["models.generator.train", "models.generator.evaluate"])
CLASSES = ["red", "green", "blue"]
PARAMS = {
    "seed": 0,
    "threads": 1,
    "generator": {
        "maskgit": {
            "net": {"dim": 16, "depth": 1, "heads": 2, "dropout": 0.1},
            "sampler": {"steps": 4, "guidance": 1.0, "decay": "linear", "temperature": 1.0, "anneal": True},
            "steps": 6,
            "batch": 8,
            "warmup": 2,
            "muon_lr": 0.02,
            "lr": 0.003,
            "weight_decay": 0.03,
            "label_drop": 0.1,
            "ema": 0.9,
            "clip": 1.0,
            "precision": "bf16-mixed",
        }
    },
    "evaluate": {"maskgit": {"samples_per_class": 8, "probe_steps": 12, "probe_batch": 8}},
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with tiny scenes, an untrained tokenizer, its tokens, and two trainings on them."""
    folder = tmp_path_factory.mktemp("generator")
    (folder / "params.yaml").write_text(json.dumps(PARAMS))
    make_scenes(folder / "scenes")
    make_tokenizer(folder / "tokenizer" / "model", seed=0)
    make_tokens(folder / "tokens", weights_digest(folder / "tokenizer"))
    for out in ("once", "twice"):
        assert stage(folder, "train", tokens="tokens", tokenizer="tokenizer/model", kind="maskgit", out=out)[0] == 0
    return folder


def stage(folder, verb, **arguments):
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    process = FORKS.Process(target=command, args=(folder, f"models.generator.{verb}", words))
    process.start()
    process.join()
    return process.exitcode, (folder / "stderr").read_text()


def command(folder, module, words):
    """A stage as its command runs it, in this process: forked from one that has imported it already."""
    os.chdir(folder)
    code.put(folder)
    os.environ["MLFLOW_TRACKING_URI"] = ""
    os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def make_scenes(folder):
    """16 pictures of each of three colours, one in four held out."""
    random = np.random.default_rng(0)
    images = {}
    for i in range(48):
        noise = random.integers(0, 60, (32, 32, 3))
        noise[8 * (i % 3) : 8 * (i % 3) + 8, :, i % 3] += 150
        images[f"{i:08d}"] = noise.astype(np.uint8)
    flat = encode_disparity(np.full((32, 32), 0.5))
    entries = shards.write(
        folder, "scenes", ((k, {"rgb.png": encode_png(v), "disp.png": flat}) for k, v in images.items()), 48
    )
    rows = []
    for i, entry in enumerate(entries):
        known = {"label": i % 3, "class_name": CLASSES[i % 3], "split": "val" if i % 4 == 0 else "train"}
        rows.append(manifest.row(entry, images[entry.key], source="test", licence="CC0-1.0", **known))
    manifest.write(rows, folder)
    (folder / "info.json").write_text(json.dumps({"classes": CLASSES}))


def make_tokenizer(folder, seed):
    torch.manual_seed(seed)
    titok = {"image_size": 32, "patch": 8, "width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2}
    titok |= {"latents": 4, "token_dim": 4, "codes": 16, "proxy_grid": 8, "proxy_codes": 8}
    config = {"titok": titok, "pixels": {"channels": [8, 8], "blocks": 1, "stem": 2, "code_dim": 4}}
    folder.mkdir(parents=True)
    save_file(Tokenizer(**config).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def make_tokens(folder, tokenizer):
    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    stored = {}
    for split, rows in (("train", 40), ("val", 12)):
        stored[f"{split}_tokens"] = torch.randint(16, (rows, 4), generator=random, dtype=torch.int32)
        stored[f"{split}_labels"] = torch.arange(rows) % 3
    save_file(stored, folder / "tokens.safetensors")
    (folder / "info.json").write_text(json.dumps({"classes": CLASSES, "codes": 16, "tokenizer": tokenizer}))


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_training_twice_writes_the_same_bytes(workplace):
    once, twice = files(workplace / "once"), files(workplace / "twice")
    assert {"model/model.safetensors", "model/config.json", "metrics.json", "curves.csv", "figures/samples.png"} == (
        once.keys()
    )
    assert once == twice


def test_the_model_names_its_tokenizer_and_its_way_to_draw(workplace):
    config = json.loads((workplace / "once/model/config.json").read_text())
    assert config["tokenizer"] == weights_digest(workplace / "tokenizer")
    assert config["sampler"]["steps"] == 4
    assert config["classes"] == CLASSES


def test_evaluation_writes_declared_metrics_and_a_row_per_sample(workplace):
    code, err = stage(
        workplace, "evaluate", model="once/model", tokenizer="tokenizer/model", scenes="scenes", out="judged"
    )
    assert code == 0, err
    metrics = json.loads((workplace / "judged/metrics.json").read_text())
    for name in metrics:
        assert metric(name).better in ("higher", "lower")
    assert {"gfwd", "real_fwd", "precision", "recall", "class_agreement", "probe_accuracy"} <= metrics.keys()
    rows = pq.read_table(workplace / "judged/per_sample.parquet")
    assert rows.column("class_asked").to_pylist() == [c for c in range(3) for _ in range(8)]
    assert {p.name for p in (workplace / "judged/figures").iterdir()} == {"samples.png", "nearest.png"}


def test_another_tokenizer_is_refused_with_both_digests(workplace):
    make_tokenizer(workplace / "other" / "model", seed=1)
    code, err = stage(
        workplace, "evaluate", model="once/model", tokenizer="other/model", scenes="scenes", out="refused"
    )
    assert code == 2
    assert weights_digest(workplace / "tokenizer") in err
    assert weights_digest(workplace / "other") in err
    assert "Traceback" not in err


def test_missing_tokens_are_one_line(workplace):
    code, err = stage(workplace, "train", tokens="tokenizer", tokenizer="tokenizer", kind="maskgit", out="nothing")
    assert code == 2
    assert "tokenizer/tokens.safetensors does not exist; run the tokens stage first" in err
    assert "Traceback" not in err


def test_tokens_of_another_codebook_are_refused(workplace):
    make_tokens(workplace / "foreign", "0" * 64)
    code, err = stage(workplace, "train", tokens="foreign", tokenizer="tokenizer", kind="maskgit", out="nothing")
    assert code == 2
    assert f"made by the tokenizer {'0' * 64}, but tokenizer holds" in err
