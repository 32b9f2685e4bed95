"""Ten steps of the tiny networks give the committed losses: a refactoring keeps them, a real change explains itself."""

import pytest
import torch

from models.core.stage import Run
from models.proxy import train
from models.proxy.params import ProxyParams
from models.tokenizer import fine_tune, warm_up
from models.tokenizer.params import FineTuneParams, WarmUpParams
from models.tracking.training_run import NullTracker

STEPS = {"steps": 10, "batch": 8, "lr": 1e-3, "warmup": 2, "ema": 0.9, "clip": 1.0, "precision": "32-true"}
SHARED = {"seed": 5, "threads": 1, "bypass": 0.3, "commitment": 0.25, "muon_lr": 0.02} | STEPS
PROXY = ProxyParams(channels=(4, 8), blocks=1, stem=2, codes=16, code_dim=4, l1=0.1, **SHARED)
WARM_UP = WarmUpParams(
    patch=4, width=16, encoder_layers=1, decoder_layers=1, heads=2, latents=6, token_dim=4, codes=32,
    embedding=1.0, pixels=5.0, **SHARED,
)  # fmt: skip
FINE_TUNE = FineTuneParams(
    seed=5, threads=1, muon_lr=0.005, l1=0.1, perceptual=0.1, adversarial=0.01, lecam=0.001,
    critic_start=0.5, critic_lr=1e-3, critic_width=4, critic_stages=1, **STEPS,
)  # fmt: skip
EXPECTED = {"proxy": 0.115493, "tokenizer-warmup": 5.443028, "tokenizer": 0.215446}


def chain(folder):
    """Every stage's net after ten steps, each on what the one before left, and the rows of its curve."""
    torch.manual_seed(0)
    images = (torch.rand(32, 3, 4, 4) * 255).byte().repeat_interleave(4, 2).repeat_interleave(4, 3)
    training, held_out = images[:24], images[24:]

    def run(stage):
        return Run(stage, folder, NullTracker(), None)

    proxy, first = train.learn(PROXY, train.network(PROXY), training, held_out, run("proxy"))
    proxy.eval().requires_grad_(False)
    config = warm_up.network(WARM_UP, proxy, 16)
    titok, second = warm_up.learn(WARM_UP, config, proxy, training, held_out, run("tokenizer-warmup"))
    net, _ = fine_tune.assemble(proxy, titok.state_dict(), config)
    third = fine_tune.learn(FINE_TUNE, net, proxy, training, held_out, run("tokenizer"))
    return {"proxy": (proxy, first), "tokenizer-warmup": (titok, second), "tokenizer": (net, third)}


@pytest.fixture(scope="module")
def losses(tmp_path_factory):
    made = chain(tmp_path_factory.mktemp("golden"))
    return {stage: rows[-1]["val_loss"] for stage, (_, rows) in made.items()}


@pytest.mark.parametrize("stage", EXPECTED)
def test_ten_steps_give_the_committed_losses(losses, stage):
    # in float32; to the last bit, on any processor: test_portable_golden.py
    assert losses[stage] == pytest.approx(EXPECTED[stage], rel=2e-4)
