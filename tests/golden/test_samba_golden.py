"""Ten steps of a tiny Samba give the committed losses: a refactoring keeps them, a real change explains itself."""

import pytest
import torch

from models.core.optim import muon_adamw
from models.core.stage import Run
from models.core.training import Batches, Fit, Task, fit
from models.generator.load import build
from models.generator.train import Tokens, held_out
from models.samba import generator
from models.tracking.training_run import NullTracker
from tests.golden.test_generator_golden import tokens

TRAIN = [2.752027, 2.682865, 2.622595, 2.598729, 2.557478]
VAL = 2.55716
SHAPE = {"codes": 16, "classes": 3, "length": 8, "dim": 16, "depth": 4, "heads": 2, "mlp": 32, "window": 4, "state": 4}


def train(folder, precision="32-true"):
    """The net after ten steps, and the rows of its curve."""
    torch.manual_seed(0)
    net = build("samba", {**SHAPE, "dropout": 0.1})
    net.start_from_codebook(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)))
    (train, labels), (val, val_labels) = tokens(64, seed=2), tokens(16, seed=3)
    held = Tokens(train, labels, val, val_labels, ["a", "b", "c"], 16, "")

    def make(indices, random):
        return generator.batch(net, train[indices], labels[indices], 0.1, random)

    task = Task(net, muon_adamw(net, 0.02, 3e-3, betas=(0.9, 0.96)), generator.step)
    plan = Fit(steps=10, warmup=2, precision=precision, log_every=2, ema=0.9)
    run = Run("generator@samba", folder, NullTracker(), None)
    return net, fit(task, Batches(64, 16, 10, 0, make), plan, run, held_out("samba", net, held, 16))


def test_ten_steps_give_the_committed_losses(tmp_path):
    _, rows = train(tmp_path)
    # in float32; to the last bit, on any processor: test_portable_golden.py
    assert [row["train_loss"] for row in rows] == pytest.approx(TRAIN, abs=1e-4)
    assert rows[-1]["val_loss"] == pytest.approx(VAL, abs=1e-4)


def test_bfloat16_learns_the_same_but_for_its_digits(tmp_path):
    _, rows = train(tmp_path, "bf16-mixed")
    assert [row["train_loss"] for row in rows] == pytest.approx(TRAIN, abs=0.03)
