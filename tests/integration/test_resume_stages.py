"""Every long stage, killed and started again or made in parts, ends with the bytes of an uninterrupted one."""

import json
import multiprocessing
import random
import re
import runpy
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from data.core import manifest, shards
from data.core.samples import encode_disparity, encode_png
from data.photos import benchmark

pytestmark = pytest.mark.integration

DRIVER = Path(__file__).with_name("killed_stage.py")
STEPS, SIZE = 14, 32
EVERY = 3  # steps between checkpoints: most kills lose some, which are trained again
LEARN = {"steps": STEPS, "batch": 4, "warmup": 2, "lr": 1e-3, "muon_lr": 0.02, "ema": 0.9, "clip": 1.0}
MIXED = LEARN | {"precision": "auto"}
QUANTISED = MIXED | {"bypass": 0.34, "commitment": 0.25}
DEPTH = {
    "net": {"image_size": SIZE, "patch_size": 8, "dim": 16, "layers": 2, "heads": 2, "taps": [0, 1, 2]}
    | {"factors": [2, 1, 0.5], "neck": [8, 8, 8], "fusion": 8, "head": 8},
    "learn": MIXED
    | {"weight_decay": 1e-4, "gradient": 2.0, "absolute": 5.0, "absolute_share": 0.5, "ignored": 0.1}
    | {"zoom": 2.0, "jitter": 0.2, "merged": 0.25, "grey": 0.2},
}
PARAMS = {
    "seed": 5,
    "threads": 1,
    "proxy": {"channels": [4, 8], "blocks": 1, "stem": 2, "codes": 16, "code_dim": 4, "l1": 0.1} | QUANTISED,
    "warmup": {"patch": 8, "width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "latents": 6}
    | {"token_dim": 4, "codes": 16, "embedding": 1.0, "pixels": 5.0}
    | QUANTISED,
    "tokenizer": {"l1": 0.1, "perceptual": 0.1, "adversarial": 0.01, "lecam": 0.001}
    | {"critic_start": 0.4, "critic_lr": 1e-3, "critic_width": 4, "critic_stages": 1}
    | MIXED,
    "tokens": {"batch": 8, "per_shard": 3},
    "generator": {
        "maskgit": {
            "net": {"dim": 16, "depth": 1, "heads": 2, "dropout": 0.1},
            "sampler": {"steps": 2, "guidance": 1.0, "decay": "linear", "temperature": 1.0, "anneal": True},
            "weight_decay": 0.03,
            "label_drop": 0.1,
        }
        | MIXED
    },
    "depth": {"teacher": DEPTH, "labels": {"per_shard": 20, "batch": 8}, "student": {"small": DEPTH}},
    "evaluate": {
        "tokenizer": {"per_class": 2, "per_shard": 1},
        "maskgit": {"samples_per_class": 80, "probe_steps": 4, "probe_batch": 8},
        "depth": {"motorcycle": [32, 48], "per_shard": 1},
    },
}
CHAIN = {  # stage: module and arguments; those that train are tested, the others make what they need
    "proxy": "models.proxy.train --scenes scenes",
    "warmup": "models.tokenizer.warm_up --scenes scenes --proxy proxy/model",
    "tokenizer": "models.tokenizer.fine_tune --scenes scenes --proxy proxy/model --warmup warmup/model",
    "tokens": "models.tokenizer.encode --scenes scenes --tokenizer tokenizer/model",
    "generator": "models.generator.train --tokens tokens --tokenizer tokenizer/model --kind maskgit",
    "teacher": "models.depth.train_teacher --scenes scenes",
    "labels": "models.depth.label --photos photos --scenes scenes --teacher teacher",
    "student": "models.depth.train_student --photos photos --scenes scenes --labels labels --kind small",
    "judged-tokenizer": "models.tokenizer.evaluate --model tokenizer/model --proxy proxy/model --scenes scenes",
    "judged-maskgit": "models.generator.evaluate --model generator/model --tokenizer tokenizer/model --scenes scenes",
    "judged-depth": "models.depth.evaluate --teacher teacher --student student --scenes scenes --photos photos",
}
PARALLEL = ["tokens", "labels", "judged-tokenizer", "judged-maskgit", "judged-depth"]
TRAINABLE = [name for name in CHAIN if name not in PARALLEL]
MOMENTS = ("before", "within", "after", "saving")


@pytest.fixture(scope="module")
def call():
    """Runs a stage in a process of its own, forked from one that has imported everything; gives its exit code, or
    with several `parts` theirs, which run at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([line.split()[0] for line in CHAIN.values()])

    def call(home: Path, name: str, out: str, *when, parts: tuple[str, ...] = ("",)) -> int:
        module, _, arguments = CHAIN[name].partition(" ")
        moment = when or ("", 0)
        number = moment[2:] or (signal.SIGKILL,)
        processes = []
        for part in parts:
            named = {"REMINT_PART": part}
            globals_ = {"CALL": (str(home), module, f"{arguments} --out {out}", EVERY, *moment[:2], *number, named)}
            processes.append(context.Process(target=runpy.run_path, args=(str(DRIVER), globals_, "__main__")))
            processes[-1].start()
        for process in processes:
            process.join()
        return processes[0].exitcode if len(parts) == 1 else [process.exitcode for process in processes]

    return call


@pytest.fixture(scope="module")
def home(tmp_path_factory, call):
    """A folder in which the whole chain ran without interruption."""
    home = tmp_path_factory.mktemp("whole")
    (home / "params.yaml").write_text(json.dumps(PARAMS))
    pack(home / "scenes", 160, ["glass", "wires"])
    benchmark.write_motorcycle(home / "photos" / "benchmark")
    pack(home / "photos", 8, [])
    for name in CHAIN:
        assert call(home, name, name) == 0, (home / "log").read_text()
    return home


def pack(folder: Path, count: int, classes: list[str]) -> None:
    """Bright discs in front of a slope, half of them held out."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    pictures, members = [], []
    for index in range(count):
        drawn = np.random.default_rng([1, index])
        disparity = 0.1 + 0.4 * rows / SIZE
        y, x, radius, near = drawn.uniform([6, 6, 4, 0.6], [26, 26, 9, 1.0])
        disparity[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = near
        picture = (255 * disparity[..., None] * drawn.uniform(0.3, 1, 3)).astype(np.uint8)
        pictures.append(picture)
        members.append((f"{index:08d}", {"rgb.png": encode_png(picture), "disp.png": encode_disparity(disparity)}))
    entries = shards.write(folder, folder.name, members, 100)
    table = []
    for i, (entry, picture) in enumerate(zip(entries, pictures, strict=True)):
        label, name = (i % 2, classes[i % 2]) if classes else (-1, "")
        known = {"source": "test", "licence": "CC0-1.0", "split": "val" if i % 4 > 1 else "train"}
        table.append(manifest.row(entry, picture, label=label, class_name=name, **known))
    manifest.write(table, folder)
    (folder / "info.json").write_text(json.dumps({"classes": classes}))


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def killed_and_resumed(call, home: Path, name: str, seed: int) -> None:
    drawn = random.Random(f"{name} {seed}")
    moment, step = drawn.choice(MOMENTS), drawn.randrange(1, STEPS)
    if moment == "saving":
        step = drawn.randrange(1, STEPS - EVERY)  # a checkpoint follows
    kept = step > EVERY if moment == "saving" else step >= EVERY
    assert call(home, name, "cut", moment, step) == -signal.SIGKILL, (moment, step)
    assert not (home / "cut" / "model").exists()
    (home / "log").unlink()
    assert call(home, name, "cut") == 0, (home / "log").read_text()
    assert ("going on from step" in (home / "log").read_text()) == kept
    assert files(home / "cut") == files(home / name), (moment, step)
    assert not any((home / "checkpoints").iterdir())
    shutil.rmtree(home / "cut")


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_killed_stage_goes_on_to_the_same_bytes(call, home, name):
    killed_and_resumed(call, home, name, 0)


@pytest.mark.parametrize("moment", ["within", "after"])
def test_a_stage_told_to_end_loses_no_step(call, home, moment):
    assert call(home, "generator", "told", moment, 6, signal.SIGTERM) == 128 + signal.SIGTERM
    (home / "log").unlink()
    assert call(home, "generator", "told") == 0
    assert "going on from step 7\n" in (home / "log").read_text()
    assert files(home / "told") == files(home / "generator")
    shutil.rmtree(home / "told")


@pytest.mark.parametrize("name", PARALLEL)
def test_a_data_parallel_stage_goes_on_from_its_finished_shards(call, home, name):
    assert call(home, name, "cut", "shard", 1) == -signal.SIGKILL
    (home / "log").unlink()
    assert call(home, name, "cut") == 0, (home / "log").read_text()
    assert "going on with 1 of " in (home / "log").read_text()
    assert_like_the_whole(home, name, "cut")


@pytest.mark.parametrize("name", PARALLEL)
def test_parts_made_at_once_and_in_any_order_give_the_same_bytes(call, home, name):
    assert call(home, name, "shared", parts=("3/3", "1/3", "2/3")) == [0, 0, 0], (home / "log").read_text()
    assert not (home / "shared").exists()  # a part writes no outputs
    (home / "log").unlink()
    assert call(home, name, "shared") == 0
    done, count = re.search(r"going on with (\d+) of (\d+) shards done", (home / "log").read_text()).groups()
    assert done == count
    assert_like_the_whole(home, name, "shared")


def test_a_stage_told_to_end_keeps_its_finished_shards_and_clears_up(call, home):
    assert call(home, "labels", "told", "shard", 2, signal.SIGTERM) == 128 + signal.SIGTERM
    assert {path.suffix for place in (home / "checkpoints").iterdir() for path in place.iterdir()} == {".shard"}
    (home / "log").unlink()
    assert call(home, "labels", "told") == 0
    assert "going on with 2 of " in (home / "log").read_text()
    assert_like_the_whole(home, "labels", "told")


def test_a_damaged_shard_is_made_again(call, home):
    assert call(home, "tokens", "hurt", parts=("1/1",)) == 0
    (place,) = (home / "checkpoints").iterdir()
    hurt = sorted(place.iterdir())[0]
    hurt.write_bytes(hurt.read_bytes()[:-1])
    (home / "log").unlink()
    assert call(home, "tokens", "hurt") == 0
    assert f"{hurt.name} is damaged" in (home / "log").read_text()
    assert_like_the_whole(home, "tokens", "hurt")


def assert_like_the_whole(home: Path, name: str, out: str) -> None:
    assert files(home / out) == files(home / name)
    assert not any((home / "checkpoints").iterdir())
    shutil.rmtree(home / out)


def test_a_training_is_not_made_in_parts(call, home):
    assert call(home, "proxy", "none", parts=("1/2",)) == 2
    assert "is not made in parts" in (home / "log").read_text()


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("name", TRAINABLE)
def test_it_does_so_wherever_it_was_killed(call, home, name, seed):
    killed_and_resumed(call, home, name, seed)
