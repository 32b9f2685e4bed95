"""The MaskGIT net, its masks and its loss."""

import math

import pytest
import torch

from data.core.params import UserError
from models.generator.load import build
from models.maskgit import losses
from models.maskgit.generator import Net as MaskGit

TINY = {"codes": 11, "classes": 3, "length": 6, "dim": 16, "depth": 2, "heads": 2}


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def test_logits_have_one_row_per_token_and_one_column_per_code():
    net = MaskGit(**TINY)
    assert net(torch.full((4, 6), net.mask_token), torch.tensor([0, 1, 2, net.no_class])).shape == (4, 6, 11)


def test_first_logits_are_of_order_one():
    torch.manual_seed(0)
    net = MaskGit(**{**TINY, "dim": 64, "codes": 200})
    logits = net(torch.full((8, 6), net.mask_token), torch.zeros(8, dtype=torch.long))
    assert 0.1 < logits.std().item() < 3


def test_a_codebook_start_puts_like_codes_side_by_side():
    torch.manual_seed(0)
    net = MaskGit(**{**TINY, "dim": 64})
    codebook = torch.randn(11, 12)
    codebook[1] = codebook[0]
    net.start_from_codebook(codebook)
    similarity = torch.nn.functional.cosine_similarity(net.token_embed.weight[:1], net.token_embed.weight[1:11])
    assert similarity.argmax().item() == 0
    assert net.token_embed.weight[:11].square().mean().item() == pytest.approx(1, abs=0.4)


def test_the_masked_share_follows_the_arccos_of_a_uniform_number():
    tokens = torch.zeros(20_000, 32, dtype=torch.long)
    masked, mask = losses.mask_tokens(tokens, mask_token=9, generator=random())
    assert torch.equal(masked == 9, mask)
    share = mask.float().mean(1)
    assert share.mean().item() == pytest.approx(2 / math.pi, abs=0.01)  # the mean of acos(u) / (pi / 2)
    # acos(u) / (pi / 2) > 1/2 where u < cos(pi / 4)
    assert (share > 0.5 + 1 / 64).float().mean().item() == pytest.approx(math.cos(math.pi / 4), abs=0.03)


def test_at_least_one_token_is_masked():
    _, mask = losses.mask_tokens(torch.zeros(5_000, 3, dtype=torch.long), mask_token=9, generator=random())
    assert mask.sum(1).min().item() == 1


def test_a_tenth_of_the_labels_is_dropped():
    labels = losses.drop_labels(torch.zeros(20_000, dtype=torch.long), 3, 0.1, random())
    assert (labels == 3).float().mean().item() == pytest.approx(0.1, abs=0.01)


def test_loss_of_flat_logits_is_the_log_of_the_codes():
    logits = torch.zeros(2, 4, 8)
    mask = torch.tensor([[True, False, False, False]] * 2)
    out = losses.masked_cross_entropy(logits, torch.zeros(2, 4, dtype=torch.long), mask)
    assert out["loss"].item() == pytest.approx(math.log(8))
    assert out["nll"].item() == pytest.approx(math.log(8))


def test_unmasked_tokens_weigh_a_tenth():
    logits = torch.zeros(1, 2, 2)
    logits[0, 1, 0] = 100.0  # sure and right where nothing is masked
    mask = torch.tensor([[True, False]])
    out = losses.masked_cross_entropy(logits, torch.zeros(1, 2, dtype=torch.long), mask, smoothing=0.0)
    assert out["loss"].item() == pytest.approx(math.log(2) * 1 / 1.1)
    assert out["accuracy"].item() == 1.0


def test_label_smoothing_shares_a_tenth_among_all_codes():
    logits = torch.tensor([[[2.0, 0.0]]])
    out = losses.masked_cross_entropy(logits, torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool))
    log_p = torch.log_softmax(logits[0, 0], 0)
    assert out["loss"].item() == pytest.approx(-(0.95 * log_p[0] + 0.05 * log_p[1]).item())


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(UserError, match="'maskgti' is not a kind of generator; did you mean 'maskgit'"):
        build("maskgti", TINY)
