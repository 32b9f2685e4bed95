import pytest
import torch

from models.tokenizer.discriminator import BlurDown, Discriminator
from models.tokenizer.losses import feature_distance, hinge_critic, lecam


def test_the_critics_hinge_is_zero_beyond_its_margin():
    assert hinge_critic(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -3.0])) == 0
    assert float(hinge_critic(torch.tensor([0.0]), torch.tensor([0.5]))) == pytest.approx(0.5 * (1 + 1.5))


def test_lecam_pulls_scores_towards_the_other_sides_mean():
    real, fake = torch.tensor([2.0]), torch.tensor([-1.0])
    loss = lecam(real, fake, mean_real=torch.tensor(1.0), mean_fake=torch.tensor(0.5))
    assert float(loss) == pytest.approx((2 - 0.5) ** 2 + (1 + 1) ** 2)


def test_the_feature_distance_counts_every_scale_alike():
    truth = [torch.ones(1, 2, 4, 4), torch.full((1, 4, 2, 2), 10.0)]
    assert feature_distance(truth, truth) == 0
    assert float(feature_distance([t * 1.1 for t in truth], truth)) == pytest.approx(0.01, rel=1e-4)


def test_the_critic_scores_patches():
    assert Discriminator(width=4, stages=2)(torch.rand(2, 3, 32, 32)).shape == (2, 1, 8, 8)
    assert Discriminator(width=4, stages=1)(torch.rand(1, 3, 64, 64)).shape == (1, 1, 16, 16)


def test_halving_keeps_the_mean_of_an_even_picture():
    halved = BlurDown(3)(torch.full((1, 3, 8, 8), 0.7))
    assert halved.shape == (1, 3, 4, 4)
    torch.testing.assert_close(halved[..., 1:-1, 1:-1], torch.full((1, 3, 2, 2), 0.7))
