"""Order, schedule, averaging and exact resuming, on a net of a few weights."""

import numpy as np
import pytest
import torch
from torch import nn

from models import layers, optim
from models.stage import Run
from models.tracking import NullTracker
from models.training import Batches, Fit, Task, fit


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
    return Run("tiny", tmp_path, NullTracker(), tmp_path / "checkpoint")


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
    rows = fit(whole, batches(), PLAN, run_in(tmp_path / "whole"))
    monkeypatch.setattr("models.callbacks.Resume.__init__.__defaults__", (0.0,))  # a checkpoint at every step
    with pytest.raises(Killed):
        fit(task(die_at=die_at), batches(), PLAN, run_in(tmp_path / "cut"))
    assert (tmp_path / "cut/checkpoint/last.ckpt").exists()
    resumed = task(seed=99)  # other initial weights: all must come from the checkpoint
    assert fit(resumed, batches(), PLAN, run_in(tmp_path / "cut")) == rows
    for name, tensor in whole.net.state_dict().items():
        assert torch.equal(tensor, resumed.net.state_dict()[name]), name
    assert not (tmp_path / "cut/checkpoint/last.ckpt").exists()


def test_a_broken_checkpoint_is_said_and_training_starts_over(tmp_path, capsys):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/last.ckpt").write_bytes(b"half")
    fit(task(), batches(), PLAN, run_in(tmp_path))
    assert "cannot be read" in capsys.readouterr().err


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
