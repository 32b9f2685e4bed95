import pytest
import torch

from data.core.params import UserError
from models.proxy.cut import decode_cut, dither_order, nearest_kept
from models.proxy.vqgan import VQGAN

TINY = {"channels": [4, 8], "blocks": 1, "stem": 2, "codes": 16, "code_dim": 4}


@pytest.fixture
def proxy():
    torch.manual_seed(0)
    return VQGAN(**TINY).eval()


def test_an_image_becomes_a_grid_of_codes_and_back(proxy):
    codes = proxy.encode(torch.rand(2, 3, 16, 16))
    assert proxy.downscale == 4
    assert codes.shape == (2, 4, 4)
    assert proxy.decode(codes).shape == (2, 3, 16, 16)


def test_before_quantisation_sets_in_nothing_is_committed(proxy):
    restored, commitment = proxy(torch.rand(2, 3, 16, 16), quantise=False)
    assert restored.shape == (2, 3, 16, 16)
    assert commitment == 0


def test_residual_branches_start_at_zero(proxy):
    block, x = proxy.encoder.levels[0][0], torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(block(x), x)


def test_cut_to_all_its_codes_the_proxy_is_whole(proxy):
    codes = torch.randint(16, (2, 4, 4))
    torch.testing.assert_close(decode_cut(proxy, codes, 16), proxy.decode(codes))


def test_half_the_places_of_a_grid_are_a_chequerboard():
    kept = dither_order(8, 8) < 32
    assert torch.equal(kept, (torch.arange(8)[:, None] + torch.arange(8)) % 2 == 0)


def test_every_place_has_a_rank_of_its_own():
    assert sorted(dither_order(6, 8).flatten().tolist()) == list(range(48))


def test_a_missing_place_gets_the_mean_of_its_nearest_neighbours():
    kept = torch.tensor([[True, False, True], [False, False, False]])
    weights = nearest_kept(kept)
    assert weights[0].tolist() == [1, 0, 0, 0, 0, 0]
    assert weights[1].tolist() == [0.5, 0, 0.5, 0, 0, 0]
    assert weights[3].tolist() == [1, 0, 0, 0, 0, 0]


def test_a_picture_that_its_grid_does_not_divide_is_refused(proxy):
    with pytest.raises(UserError, match="in multiples of 4 pixels, not 18 x 16"):
        proxy.encode(torch.rand(1, 3, 18, 16))
