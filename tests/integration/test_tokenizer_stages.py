"""The five stages on forty tiny pictures: each runs, hands on what the next needs, and repeats to the byte."""

import hashlib
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from data.core import manifest, shards
from data.core.params import UserError
from data.core.samples import Samples, encode_png
from models.core.images import to_tensor, unit
from models.core.saved import weights_digest
from models.proxy import train
from models.tokenizer import encode, evaluate, fine_tune, warm_up
from models.tokenizer.tokenizer import load

pytestmark = pytest.mark.integration

STEPS = {"steps": 6, "batch": 4, "lr": 1e-3, "warmup": 2, "ema": 0.9, "clip": 1.0, "precision": "auto"}
QUANTISED = {"bypass": 0.34, "commitment": 0.25, "muon_lr": 0.02}
PARAMS = {
    "seed": 3,
    "threads": 1,
    "proxy": {"channels": [4, 8], "blocks": 1, "stem": 2, "codes": 16, "code_dim": 4, "l1": 0.1} | STEPS | QUANTISED,
    "warmup": {"patch": 4, "width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "latents": 6}
    | {"token_dim": 4, "codes": 32, "embedding": 1.0, "pixels": 5.0}
    | STEPS
    | QUANTISED,
    "tokenizer": {"muon_lr": 0.005, "l1": 0.1, "perceptual": 0.1, "adversarial": 0.01, "lecam": 0.001}
    | {"critic_start": 0.5, "critic_lr": 1e-3, "critic_width": 4, "critic_stages": 1}
    | STEPS,
    "tokens": {"batch": 8, "per_shard": 3},
    "evaluate": {"tokenizer": {"per_class": 1, "per_shard": 1}},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two folders in which the same chain ran."""
    with pytest.MonkeyPatch.context() as patch:
        return [chain(tmp_path_factory.mktemp(name), patch) for name in ("first", "second")]


def chain(folder, patch):
    patch.chdir(folder)
    patch.setenv("REMINT_CHECKPOINTS", str(folder / "checkpoints"))
    (folder / "params.yaml").write_text(json.dumps(PARAMS))
    write_scenes(folder / "scenes")
    call(patch, train, "--scenes scenes --out proxy")
    call(patch, warm_up, "--scenes scenes --proxy proxy/model --out warmup")
    call(patch, fine_tune, "--scenes scenes --proxy proxy/model --warmup warmup/model --out tokenizer")
    call(patch, encode, "--scenes scenes --tokenizer tokenizer/model --out tokens")
    call(patch, evaluate, "--model tokenizer/model --proxy proxy/model --scenes scenes --out evaluation")
    return folder


def call(patch, stage, line):
    patch.setattr(sys, "argv", [stage.__name__, *line.split()])
    stage.main()


def write_scenes(folder, count=40, size=16):
    """Two classes: a bright square left or right on a ground of any colour."""
    pictures = []
    for index in range(count):
        random = np.random.default_rng([1, index])
        picture = np.full((size, size, 3), random.integers(0, 160, 3), dtype=np.uint8)
        side = slice(2, 7) if index % 2 else slice(9, 14)
        picture[4:12, side] = 230
        pictures.append(picture)
    members = ((f"{index:08d}", {"rgb.png": encode_png(picture)}) for index, picture in enumerate(pictures))
    entries = shards.write(folder, "scenes", members, 100)
    about = {"source": "test", "licence": "CC0-1.0"}
    rows = [
        manifest.row(
            entry, picture, label=i % 2, class_name="ab"[i % 2], split="val" if i % 4 > 1 else "train", **about
        )
        for i, (entry, picture) in enumerate(zip(entries, pictures, strict=True))
    ]
    manifest.write(rows, folder)
    (folder / "info.json").write_text(json.dumps({"classes": ["a", "b"]}))


def test_two_runs_give_the_same_bytes(runs):
    def digests(folder):
        files = [
            p for stage in ("proxy", "warmup", "tokenizer", "tokens", "evaluation") for p in (folder / stage).rglob("*")
        ]
        return {
            p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()
        }

    first, second = map(digests, runs)
    assert "tokenizer/model/model.safetensors" in first
    assert first == second


def test_every_stage_says_how_good_it_is(runs):
    for stage in ("proxy", "warmup", "tokenizer", "evaluation"):
        metrics = json.loads((runs[0] / stage / "metrics.json").read_text())
        assert metrics["psnr"] > 5
        assert 0 < metrics["codebook_usage"] <= 100
    assert {"ssim", "rfwd", "patch_grid", "codebook_perplexity", "proxy_psnr", "proxy_cut_psnr"} <= set(metrics)


def test_the_evaluation_has_a_row_per_held_out_picture(runs):
    rows = pq.read_table(runs[0] / "evaluation" / "per_sample.parquet")
    assert rows.column_names == ["key", "class", "psnr", "ssim"]
    assert rows["key"].to_pylist() == Samples(runs[0] / "scenes", "val").keys
    metrics = json.loads((runs[0] / "evaluation" / "metrics.json").read_text())
    assert np.mean(rows["psnr"].to_numpy()) == pytest.approx(metrics["psnr"], rel=1e-5)


def test_tokens_hold_pictures_and_their_mirror_images(runs):
    stored = load_file(runs[0] / "tokens" / "tokens.safetensors")
    images = unit(to_tensor(Samples(runs[0] / "scenes", "train").images()))
    net = load(runs[0] / "tokenizer")
    assert torch.equal(stored["train_tokens"][:20].long(), net.encode(images))
    assert torch.equal(stored["train_tokens"][20:].long(), net.encode(images.flip(-1)))
    assert stored["train_labels"].tolist() == [0, 1] * 20
    assert stored["val_tokens"].shape == (20, 6)
    info = json.loads((runs[0] / "tokens" / "info.json").read_text())
    assert info == {"codes": 32, "classes": ["a", "b"], "tokenizer": weights_digest(runs[0] / "tokenizer")}


def test_fine_tuning_leaves_the_encoder_and_the_codebook_as_they_were(runs):
    before = load_file(runs[0] / "warmup" / "model" / "model.safetensors")
    after = load_file(runs[0] / "tokenizer" / "model" / "model.safetensors")
    frozen = [name for name in before if name.startswith(("encoder.", "quantizer."))]
    assert frozen
    assert all(torch.equal(before[name], after[f"titok.{name}"]) for name in frozen)
    assert not torch.equal(before["decoder.embed.weight"], after["titok.decoder.embed.weight"])


def test_a_stage_before_its_input_is_a_users_mistake(runs, monkeypatch):
    monkeypatch.chdir(runs[0])
    with pytest.raises(UserError, match="--proxy nowhere does not exist"):
        call(monkeypatch, warm_up, "--scenes scenes --proxy nowhere --out elsewhere")
