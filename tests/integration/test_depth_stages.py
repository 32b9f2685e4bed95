"""The depth stages from end to end on a dozen tiny pictures: outputs, bad input, and the same bytes twice."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.core import manifest, shards
from data.core.samples import Samples, encode_disparity, encode_png
from models.depth import evaluate, label, train_student, train_teacher
from models.metrics import metric

pytestmark = pytest.mark.integration

SIZE, CLASSES = 32, ["glass", "wires"]
NET = {
    "image_size": SIZE, "patch_size": 8, "dim": 16, "layers": 2, "heads": 2, "taps": [0, 1, 2],
    "factors": [2, 1, 0.5], "neck": [8, 8, 8], "fusion": 8, "head": 8,
}  # fmt: skip
LEARN = {
    "steps": 4, "batch": 4, "warmup": 1, "lr": 0.001, "muon_lr": 0.02, "weight_decay": 0.0001, "clip": 1.0,
    "ema": 0.9, "gradient": 2.0, "absolute": 5.0, "absolute_share": 0.5, "ignored": 0.0, "zoom": 2.0, "jitter": 0.2,
    "merged": 0.25, "grey": 0.2, "precision": "32-true",
}  # fmt: skip
PARAMS = {
    "seed": 1,
    "threads": 1,
    "depth": {
        "teacher": {"net": NET, "learn": LEARN},
        "labels": {"per_shard": 8, "batch": 4},
        "student": {"small": {"net": {**NET, "dim": 8}, "learn": {**LEARN, "ignored": 0.1}}},
    },
    "evaluate": {"depth": {"motorcycle": [32, 48], "per_shard": 1}},
}


def pack(folder: Path, count: int, with_depth: bool) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
    disparities = random.uniform(0.1, 1, (count, SIZE, SIZE)).astype(np.float32)
    keys = [f"{i:08d}" for i in range(count)]
    members = [
        {"rgb.png": encode_png(image), **({"disp.png": encode_disparity(disparity)} if with_depth else {})}
        for image, disparity in zip(images, disparities, strict=True)
    ]
    entries = shards.write(folder, folder.name, zip(keys, members, strict=True), per_shard=100)
    rows = []
    for i, (entry, image) in enumerate(zip(entries, images, strict=True)):
        label, name = (i % 2, CLASSES[i % 2]) if with_depth else (-1, "")
        split = "val" if i % 4 > 1 else "train"
        known = {"source": "test", "licence": "CC0-1.0", "label": label, "class_name": name, "split": split}
        rows.append(manifest.row(entry, image, **known))
    manifest.write(rows, folder)
    (folder / "info.json").write_text(json.dumps({"classes": CLASSES if with_depth else []}))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with scenes, photos and params.yaml."""
    home = tmp_path_factory.mktemp("depth")
    pack(home / "scenes", 12, with_depth=True)
    pack(home / "photos", 8, with_depth=False)
    (home / "photos" / "benchmark").mkdir()
    gradient = np.linspace(0.2, 0.5, 50 * 74, dtype=np.float32).reshape(50, 74)
    np.save(home / "photos" / "benchmark" / "motorcycle.npy", gradient)
    Image.new("RGB", (74, 50), "grey").save(home / "photos" / "benchmark" / "motorcycle.png")
    (home / "params.yaml").write_text(json.dumps(PARAMS))
    return home


def stage(monkeypatch, module, **arguments) -> None:
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", [module.__name__, *words])
    module.main()


def chain(monkeypatch, home: Path, out: Path) -> None:
    monkeypatch.chdir(home)
    scenes, photos, labels = home / "scenes", home / "photos", out / "labels"
    stage(monkeypatch, train_teacher, scenes=scenes, out=out / "teacher")
    stage(monkeypatch, label, photos=photos, scenes=scenes, teacher=out / "teacher", out=labels)
    both = {"photos": photos, "scenes": scenes}
    stage(monkeypatch, train_student, kind="small", **both, labels=labels, out=out / "small")
    made = {"teacher": out / "teacher", "student": out / "small"}
    stage(monkeypatch, evaluate, **made, **both, out=out / "evaluate")


@pytest.fixture(scope="module")
def outs(home):
    with pytest.MonkeyPatch.context() as monkeypatch:
        chain(monkeypatch, home, home / "one")
        chain(monkeypatch, home, home / "two")
    return home / "one", home / "two"


def test_two_runs_of_every_depth_stage_write_the_same_bytes(outs):
    one, two = outs
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert len(files) > 20
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert [f for f in files if (one / f).read_bytes() != (two / f).read_bytes()] == []


def test_the_evaluation_measures_both_models_in_declared_metrics(outs):
    found = json.loads((outs[0] / "evaluate" / "metrics.json").read_text())
    assert set(found) == {"teacher", "small"}
    wanted = {"abs_rel", "delta1", "rmse", "pair_accuracy", "delta1_glass", "delta1_wires", "motorcycle_abs_rel"}
    for values in found.values():
        assert wanted < set(values)
        assert all(metric(name) for name in values)
    rows = pq.read_table(outs[0] / "evaluate" / "per_sample.parquet").to_pylist()
    assert {"key", "class", "model", "abs_rel", "delta1", "pair_accuracy"} <= set(rows[0])
    assert len(rows) == 2 * 6


def test_a_student_depends_on_labels_and_never_on_true_depth(outs, home, monkeypatch):
    def refuse(*_):
        raise AssertionError("a student read a true depth")

    monkeypatch.setattr(Samples, "disparity", refuse)
    monkeypatch.setattr(Samples, "disparities", refuse)
    monkeypatch.chdir(home)
    both = {"photos": home / "photos", "scenes": home / "scenes"}
    stage(monkeypatch, train_student, kind="small", **both, labels=outs[0] / "labels", out=home / "blind")
    again = (home / "blind" / "model" / "model.safetensors").read_bytes()
    assert again == (outs[0] / "small" / "model" / "model.safetensors").read_bytes()


def test_an_unknown_kind_of_student_is_named_with_the_near_one(outs, home, monkeypatch):
    from data.core.params import UserError

    monkeypatch.chdir(home)
    both = {"photos": home / "photos", "scenes": home / "scenes"}
    with pytest.raises(UserError, match="did you mean 'small'"):
        stage(monkeypatch, train_student, kind="smal", **both, labels=outs[0] / "labels", out=home / "never")
