"""Checkpoints as files: exact round trips, no code, whole or not at all, and a pace that costs little."""

import hashlib
import math
import os
import pickle
import time

import pytest
import torch

from data.core import stores
from data.core.checkpoint_store import discard, unfinished
from data.core.params import UserError
from models.core.checkpoint import files
from models.core.checkpoint.checkpoints import Checkpoints
from models.core.checkpoint.resume import Pace, Resume

DTYPES = [
    torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool,
]  # fmt: skip


def same(a, b):
    """Equal in value, kind, dtype, shape and memory order."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def test_every_kind_of_value_comes_back_as_it_was(tmp_path):
    random = torch.Generator().manual_seed(0)
    state = {
        "tensors": {str(d): (100 * torch.rand(3, 5, generator=random)).to(d) for d in DTYPES},
        "special": torch.tensor([math.nan, math.inf, -0.0, 5e-324]),
        "shapes": [torch.tensor(3.5).reshape(1), torch.zeros(0, 4), torch.ones(1, 1, 1)],
        "optimiser": {"state": {0: {"step": torch.ones(1)}, 7: {}}, "param_groups": [{"betas": (0.9, 0.99)}]},
        "plain": [None, True, False, 0, 1, -1, 2**70, 0.1, 1e-320, math.nan, -math.inf, "", "ß\n", [], (), {}],
        "dict": {"dict": 1, "tuple": [1], "tensor": "x", 1: "int", "1": "text", None: 0, 2.5: ((),)},
        "a/b": torch.ones(2),
        "a": {"b": torch.zeros(2)},
    }
    files.write(tmp_path / "file", state)
    assert same(files.read(tmp_path / "file"), state)


def test_single_numbers_views_and_other_memory_orders_come_back(tmp_path):
    whole = torch.arange(24.0).reshape(2, 3, 4, 1)
    state = {
        "number": torch.tensor(2, dtype=torch.int64),
        "view": whole[:, 1],
        "shared": whole.flatten(),
        "transposed": torch.arange(6).reshape(2, 3).T,
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    files.write(tmp_path / "file", state)
    found = files.read(tmp_path / "file")
    assert all(torch.equal(found[k], v) for k, v in state.items())
    assert found["transposed"].stride() == (1, 3)
    assert found["channels_last"].is_contiguous(memory_format=torch.channels_last)


def test_a_value_of_another_kind_is_named_by_its_place(tmp_path):
    with pytest.raises(TypeError, match="state/loops/1 is a set"):
        files.write(tmp_path / "file", {"loops": [1, {2}]})
    with pytest.raises(TypeError, match="state has a key of type tuple"):
        files.write(tmp_path / "file", {(1, 2): 3})


class Trap:
    def __reduce__(self):
        return os.system, ("touch trapped",)


def test_a_pickle_under_a_good_name_is_not_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(Trap())
    (tmp_path / f"00000003-{hashlib.sha256(content).hexdigest()}.safetensors").write_bytes(content)
    assert Checkpoints(str(tmp_path)).newest() is None
    assert "holds no training state" in capsys.readouterr().err
    assert not (tmp_path / "trapped").exists()


def test_only_the_two_newest_stay_and_the_newest_is_found(tmp_path):
    checkpoints = Checkpoints(str(tmp_path / "one"))
    for step in (5, 10, 15):
        checkpoints.save(step, lambda file, step=step: files.write(file, {"step": step}))
    assert [p.name[:8] for p in sorted((tmp_path / "one").iterdir())] == ["00000010", "00000015"]
    assert checkpoints.newest() == (15, {"step": 15})
    checkpoints.forget()
    assert not (tmp_path / "one").exists()
    assert checkpoints.newest() is None


def test_what_a_killed_writer_left_is_not_found_and_goes(tmp_path):
    (tmp_path / ".scratch-dead").mkdir()
    (tmp_path / ".scratch-dead" / "00000003").write_bytes(b"half")
    store = stores.open(str(tmp_path))
    with store.scratch() as used:
        (used / "00000004").write_bytes(b"being written")
        assert Checkpoints(str(tmp_path)).newest() is None
        assert list(tmp_path.iterdir()) == [used]
        assert (used / "00000004").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_refuses_is_said_once(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    checkpoints = Checkpoints(str(tmp_path / "file" / "inside"))
    for step in (1, 2):
        checkpoints.save(step, lambda file: files.write(file, {}))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "checkpoints cannot be saved" in said
    assert "the stage goes on" in said


@pytest.mark.parametrize("address", ["gs://bucket/x", "s3://", "s3://UPPER/x", "s3:///x"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(UserError, match=r"neither a folder nor s3://bucket/prefix"):
        stores.open(address)


def test_unfinished_trainings_are_listed_and_discarded(tmp_path):
    places = [f"proxy-{'a' * 16}", f"generator@maskgit-{'b' * 16}"]
    for place in places:
        Checkpoints(str(tmp_path / place)).save(40, lambda file: files.write(file, {"a": torch.zeros(9)}))
    old = time.time() - 3600
    for file in (tmp_path / places[0]).iterdir():
        os.utime(file, (old, old))
    (found,) = unfinished(str(tmp_path), idle=60)
    assert (found.stage, found.place, found.number) == ("proxy", places[0], 40)
    assert found.size > 36
    discard(str(tmp_path), found.place)
    assert [one.stage for one in unfinished(str(tmp_path))] == ["generator@maskgit"]
    with pytest.raises(UserError, match="is not the name"):
        discard(str(tmp_path), f"../{places[1]}")


class Saver:
    """As much of a trainer as saving needs."""

    world_size = 1

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.step = clock, seconds, 0
        self.saved = []

    def save_checkpoint(self, file):
        files.write(file, {})
        self.saved.append(self.step)
        self.clock[0] += self.seconds


def saved_at(tmp_path, monkeypatch, pace, step_seconds, save_seconds, steps=100):
    clock = [0.0]
    monkeypatch.setattr("models.core.checkpoint.resume.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(Resume, "pace", pace)
    resume, trainer = Resume(Checkpoints(str(tmp_path / "store"))), Saver(clock, save_seconds)
    for trainer.step in range(steps):
        resume.on_train_batch_start(trainer, None, None, trainer.step)
        clock[0] += step_seconds
    return trainer.saved


def test_a_checkpoint_comes_after_so_many_steps_or_seconds(tmp_path, monkeypatch):
    assert saved_at(tmp_path, monkeypatch, Pace(30, 1000.0, 0.05), 1.0, 0.0) == [30, 60, 90]
    assert saved_at(tmp_path, monkeypatch, Pace(1000, 40.0, 0.05), 1.0, 0.0) == [40, 80]


def test_saving_takes_no_more_than_its_share(tmp_path, monkeypatch):
    assert saved_at(tmp_path, monkeypatch, Pace(10, 1000.0, 0.05), 1.0, 2.0) == [10, 50, 90]
