"""Order, schedule, averaging and exact resuming, on a net of a few weights."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from models.core import layers, optim
from models.core.checkpoint.resume import Pace, Resume
from models.core.stage import Run
from models.core.training import Batches, Fit, Task, fit
from models.tracking.training_run import NullTracker


class Killed(Exception):
    pass


def task(seed=0, die_at=None):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 4))
    seen = []

    def step(net, batch, progress):
        seen.append(progress)
        if die_at is not None and net.training and len(seen) > die_at:
            raise Killed
        return {"loss": (net(batch["x"]) - batch["x"].flip(1)).square().mean()}

    return Task(net, optim.adamw(net, lr=1e-2), step)


def batches(steps=30):
    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))

    def make(indices, generator):
        return {"x": data[indices] + 0.01 * torch.randn(len(indices), 4, generator=generator)}

    return Batches(64, batch=10, steps=steps, seed=3, make=make)


def run_in(tmp_path):
    return Run("tiny", tmp_path, NullTracker(), str(tmp_path / "checkpoint"))


EVERY_STEP = Pace(steps=1, seconds=1e9, share=1e9)
PLAN = Fit(steps=30, warmup=3, precision="32-true", log_every=5)


def test_each_sample_comes_once_an_epoch_and_the_order_is_a_function_of_seed_and_step():
    order = torch.cat([batches(64).indices(step) for step in range(64)])
    for epoch in range(10):
        assert sorted(order[epoch * 64 : epoch * 64 + 64].tolist()) == list(range(64))
    assert not torch.equal(order[:64], order[64:128])


def test_training_lowers_the_loss_and_validates_the_average(tmp_path):
    made = task()
    rows = fit(made, batches(), PLAN, run_in(tmp_path), validation=[next(iter(batches()))])
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["step"] == 30
    with torch.no_grad():
        kept = (made.net.eval()(next(iter(batches()))["x"]) - next(iter(batches()))["x"].flip(1)).square().mean()
    assert rows[-1]["val_loss"] == pytest.approx(float(kept), rel=1e-5)


@pytest.mark.parametrize("die_at", [7, 20])
def test_a_killed_training_goes_on_to_the_same_bytes(tmp_path, die_at, monkeypatch):
    whole = task()
    validation = [next(iter(batches()))]
    rows = fit(whole, batches(), PLAN, run_in(tmp_path / "whole"), validation)
    monkeypatch.setattr(Resume, "pace", EVERY_STEP)
    with pytest.raises(Killed):
        fit(task(die_at=die_at), batches(), PLAN, run_in(tmp_path / "cut"), validation)
    assert len(list((tmp_path / "cut/checkpoint").iterdir())) == 2
    resumed, run = task(seed=99), run_in(tmp_path / "cut")  # other initial weights: all must come from the checkpoint
    assert fit(resumed, batches(), PLAN, run, validation) == rows
    for name, tensor in whole.net.state_dict().items():
        assert torch.equal(tensor, resumed.net.state_dict()[name]), name
    for call in run.when_done:
        call()
    assert not (tmp_path / "cut/checkpoint").exists()


@pytest.mark.parametrize("kept_at", [1, 4, 5, 6, 15, 29])
def test_a_training_goes_on_from_any_step(tmp_path, kept_at, monkeypatch):
    """With a validation at every fifth step, and all three global random states in use."""
    plan = replace(PLAN, val_every=5)
    validation = [next(iter(batches()))]
    whole = noisy_task()
    rows = fit(whole, batches(), plan, run_in(tmp_path / "whole"), validation)
    monkeypatch.setattr(Resume, "pace", Pace(steps=kept_at, seconds=1e9, share=1e9))
    with pytest.raises(Killed):
        fit(noisy_task(die_at=kept_at), batches(), plan, run_in(tmp_path / "cut"), validation)
    for draw in (random.seed, np.random.seed, torch.manual_seed):
        draw(0)
    resumed = noisy_task(seed=99)
    assert fit(resumed, batches(), plan, run_in(tmp_path / "cut"), validation) == rows
    assert all(torch.equal(a, b) for a, b in zip(whole.net.parameters(), resumed.net.parameters(), strict=True))


def noisy_task(seed=0, die_at=None):
    made = task(seed)
    plain, seen = made._step, []

    def step(net, batch, progress):
        if net.training:
            if len(seen) == die_at:
                raise Killed
            seen.append(progress)
        found = plain(net, batch, progress)
        noise = random.random() + np.random.random() + torch.rand(()) if net.training else 0.0
        return {"loss": found["loss"] * (1 + noise)}

    made._step = step
    return made


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Resume, "pace", EVERY_STEP)
    with pytest.raises(Killed):
        fit(task(die_at=9), batches(), PLAN, run_in(tmp_path))
    older, newest = sorted((tmp_path / "checkpoint").iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    capsys.readouterr()
    fit(task(), batches(), PLAN, run_in(tmp_path))
    said = capsys.readouterr().err
    assert f"{newest} is damaged (expected SHA-256 {newest.name[9:21]}, found" in said
    assert f"going on from step {int(older.name[:8])}" in said


def test_without_a_good_checkpoint_training_starts_over(tmp_path, capsys):
    rows = fit(task(), batches(), PLAN, run_in(tmp_path / "other"))
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / f"00000007-{'0' * 64}.safetensors").write_bytes(b"half")
    assert fit(task(), batches(), PLAN, run_in(tmp_path)) == rows
    assert "is damaged" in capsys.readouterr().err


def test_a_store_that_cannot_be_reached_is_said_once_and_training_goes_on(tmp_path, capsys, monkeypatch):
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "it"}
    for name, value in (environment | {"AWS_MAX_ATTEMPTS": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Resume, "pace", Pace(steps=15, seconds=1e9, share=1e9))
    rows = fit(task(), batches(), PLAN, run_in(tmp_path))
    run = Run("tiny", tmp_path, NullTracker(), "s3://nobody/tiny-0123456789abcdef")
    assert fit(task(), batches(), PLAN, run) == rows
    said = capsys.readouterr().err
    assert said.count("the stage goes on") == 1
    assert "s3://nobody/tiny-0123456789abcdef: Could not connect" in said


def test_a_diverging_loss_stops_the_stage(tmp_path):
    made = task()
    with torch.no_grad():
        made.net[0].weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 5"):
        fit(made, batches(), PLAN, run_in(tmp_path))


def test_the_schedule_warms_up_and_ends_at_its_end():
    factors = [optim.warmup_cosine(s, 10, 100, 0.1) for s in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == 1.0
    assert factors[100] == pytest.approx(0.1)


def test_attention_equals_the_formula_written_out():
    torch.manual_seed(0)
    attention = layers.Attention(8, 2)
    x = torch.randn(2, 5, 8)
    q, k, v = attention.qkv(x).chunk(3, -1)
    heads = []
    for h in (slice(0, 4), slice(4, 8)):
        heads.append(torch.softmax(q[..., h] @ k[..., h].transpose(1, 2) / 2.0, -1) @ v[..., h])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(heads, -1)))


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    net = nn.ModuleDict({"blocks": nn.ModuleList([layers.Block(8, 2)]), "head": nn.Linear(8, 2)})
    muon, adam = optim.muon_adamw(net, 0.02, 1e-3)
    assert len(muon.param_groups[0]["params"]) == 4
    assert sum(len(g["params"]) for g in adam.param_groups) == len(list(net.parameters())) - 4


def test_grid_positions_differ_everywhere():
    positions = layers.sincos_2d(4, 5, 16)
    assert positions.shape == (20, 16)
    assert np.unique(positions.numpy().round(5), axis=0).shape[0] == 20
