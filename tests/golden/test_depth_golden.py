"""Ten steps of a tiny depth net give the committed losses: a refactoring keeps them, a real change explains itself."""

import numpy as np
import pytest

from models.core.stage import Run
from models.depth.learn import Pairs, learn
from models.depth.params import LearnParams, NetParams
from models.tracking.training_run import NullTracker

TRAIN = [13.840737, 10.082973, 7.544501, 7.393208, 6.79209]
VAL = 7.078794

SIZES = NetParams(
    image_size=32, patch_size=8, dim=16, layers=2, heads=2, taps=(0, 1, 2), factors=(2, 1, 0.5), neck=(8, 8, 8),
    fusion=8, head=8,
)  # fmt: skip
LEARN = LearnParams(
    steps=10, batch=8, warmup=2, lr=3e-3, muon_lr=0.02, weight_decay=1e-4, clip=1.0, ema=0.9, gradient=2.0,
    absolute=5.0, absolute_share=0.5, ignored=0.1, zoom=2.0, jitter=0.2, merged=0.25, grey=0.2,
    precision="32-true",
)  # fmt: skip


def pairs(count, seed):
    """Bright discs in front of dark slopes: the brighter, the nearer."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:32, :32]
    disparities = np.repeat((0.1 + 0.4 * rows / 31)[None], count, 0)
    for disparity in disparities:
        y, x, radius, near = random.uniform([6, 6, 4, 0.6], [26, 26, 9, 1.0])
        disparity[(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = near
    grey = 255 * np.clip(disparities + random.normal(0, 0.02, disparities.shape), 0, 1)
    return Pairs(np.repeat(grey[..., None], 3, -1).astype(np.uint8), disparities.astype(np.float32))


def train(folder):
    """The net after ten steps, and the rows of its curve."""
    run = Run("depth-teacher", folder, NullTracker(), None)
    return learn(SIZES, LEARN, 0, pairs(64, seed=1), pairs(8, seed=2), run)


def test_ten_steps_give_the_committed_losses(tmp_path):
    _, rows = train(tmp_path)
    # in float32; to the last bit, on any processor: test_portable_golden.py
    assert [row["train_loss"] for row in rows] == pytest.approx(TRAIN, abs=2e-3)
    assert rows[-1]["val_loss"] == pytest.approx(VAL, abs=2e-3)
