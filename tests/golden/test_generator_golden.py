"""Ten steps of a tiny MaskGIT give the committed losses: a refactoring keeps them, a real change explains itself."""

import pytest
import torch

from models.core.optim import muon_adamw
from models.core.stage import Run
from models.core.training import Batches, Fit, Task, fit
from models.generator.load import build
from models.generator.train import Tokens, held_out
from models.maskgit import generator
from models.tracking.training_run import NullTracker

TRAIN = [3.176998, 2.955198, 2.786001, 2.724387, 2.694112]
VAL = 2.6822


def tokens(rows, seed):
    """Tokens that follow from the class but for a tenth of them."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (rows,), generator=random)
    sure = (torch.arange(8) * (1 + labels[:, None])) % 16
    noise = torch.randint(16, (rows, 8), generator=random)
    return torch.where(torch.rand(rows, 8, generator=random) < 0.1, noise, sure), labels


def train(folder):
    """The net after ten steps, and the rows of its curve."""
    torch.manual_seed(0)
    net = build("maskgit", {"codes": 16, "classes": 3, "length": 8, "dim": 16, "depth": 2, "heads": 2, "dropout": 0.1})
    net.start_from_codebook(torch.randn(16, 4, generator=torch.Generator().manual_seed(1)))
    (train, labels), (val, val_labels) = tokens(64, seed=2), tokens(16, seed=3)
    held = Tokens(train, labels, val, val_labels, ["a", "b", "c"], 16, "")

    def make(indices, random):
        return generator.batch(net, train[indices], labels[indices], 0.1, random)

    task = Task(net, muon_adamw(net, 0.02, 3e-3, betas=(0.9, 0.96)), generator.step)
    plan = Fit(steps=10, warmup=2, precision="32-true", log_every=2, ema=0.9)
    run = Run("generator@maskgit", folder, NullTracker(), None)
    return net, fit(task, Batches(64, 16, 10, 0, make), plan, run, held_out("maskgit", net, held, 16))


def test_ten_steps_give_the_committed_losses(tmp_path):
    _, rows = train(tmp_path)
    # in float32; to the last bit, on any processor: test_portable_golden.py
    assert [row["train_loss"] for row in rows] == pytest.approx(TRAIN, abs=1e-4)
    assert rows[-1]["val_loss"] == pytest.approx(VAL, abs=1e-4)
