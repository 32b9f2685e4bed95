"""Losses of slices of a batch: their gradients average to that of the whole, even if divided by a sum over it."""

import pytest
import torch

from models.core import ranks
from models.depth import losses as depth
from models.maskgit import losses as generator
from models.tokenizer import losses as tokenizer


def masked(x, rows):
    random = torch.Generator().manual_seed(1)
    targets = torch.randint(5, (8, 6), generator=random)
    mask = torch.rand(8, 6, generator=random) < torch.linspace(0.1, 0.9, 8)[:, None]  # uneven, as masks are
    return generator.masked_cross_entropy(x[rows].view(-1, 6, 5), targets[rows], mask[rows])["loss"]


def disparity(x, rows):
    truth = torch.rand(8, 5, 6, generator=torch.Generator().manual_seed(2))
    return depth.affine_invariant(x[rows].view(-1, 5, 6), truth[rows], ignored=0.2)["loss"]


def features(x, rows):
    truth = torch.rand(8, 30, generator=torch.Generator().manual_seed(3)) * torch.arange(1, 9)[:, None]
    return tokenizer.feature_distance([x[rows]], [truth[rows]])


@pytest.mark.parametrize("loss", [masked, disparity, features])
def test_gradients_of_slices_average_to_that_of_the_batch(loss, monkeypatch):
    x = torch.rand(8, 30, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (whole,) = torch.autograd.grad(loss(x, slice(0, 8)), x)
    slices, said = [slice(0, 4), slice(4, 8)], []
    monkeypatch.setattr(ranks, "mean", lambda value: said.append(value) or value)
    plain = sum(torch.autograd.grad(loss(x, rows), x)[0] / 2 for rows in slices)
    common = sum(said) / 2  # what the two ranks would tell each other
    monkeypatch.setattr(ranks, "mean", lambda value: common)
    shared = sum(torch.autograd.grad(loss(x, rows), x)[0] / 2 for rows in slices)
    assert torch.allclose(shared, whole, rtol=1e-4, atol=1e-6)
    if loss is not disparity:  # its maps keep equal shares
        assert not torch.allclose(plain, whole, rtol=1e-4, atol=1e-6)
