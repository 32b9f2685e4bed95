import numpy as np
import pytest
import torch

from models.metrics import codebook, image


def test_psnr_of_an_error_of_a_tenth_is_20_decibels():
    truth = torch.zeros(2, 3, 8, 8)
    error = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    torch.testing.assert_close(image.psnr(truth + error, truth), torch.tensor([20.0, 40.0]).double(), atol=1e-5, rtol=0)


def test_ssim_of_a_picture_with_itself_is_one_and_with_noise_is_low():
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    other = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert float(image.ssim(picture, picture)) == pytest.approx(1)
    assert float(image.ssim(other, picture)) < 0.2


def test_ssim_of_two_even_pictures_is_their_luminance_term():
    a, b = torch.full((1, 3, 16, 16), 0.5), torch.full((1, 3, 16, 16), 0.7)
    assert float(image.ssim(a, b)) == pytest.approx((2 * 0.35 + 1e-4) / (0.25 + 0.49 + 1e-4))


def test_ssim_agrees_with_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    random = np.random.default_rng(0)
    a = random.random((24, 24, 3))
    b = np.clip(a + 0.2 * random.standard_normal(a.shape), 0, 1)
    whole = metrics.structural_similarity(
        a, b, channel_axis=2, gaussian_weights=True, use_sample_covariance=False, data_range=1, full=True
    )[1]
    inside = whole[5:-5, 5:-5].mean()
    ours = image.ssim(*(torch.from_numpy(x).permute(2, 0, 1)[None] for x in (a, b)))
    assert float(ours) == pytest.approx(inside, abs=1e-6)


def test_a_grid_in_the_error_shows():
    truth = torch.zeros(1, 3, 32, 32)
    random = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(1, 3, 32, 32, generator=random)
    tiles = torch.randn(1, 3, 4, 4, generator=random).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert image.patch_grid(noise, truth, 8) == pytest.approx(1, abs=0.1)
    assert image.patch_grid(noise + 0.1 * tiles, truth, 8) > 10


def test_usage_and_perplexity_of_a_known_histogram():
    found = dict(codebook.usage(np.array([[0, 1], [1, 2]]), codes=8))
    assert found["codebook_usage"] == pytest.approx(37.5)
    assert found["codebook_perplexity"] == pytest.approx(2**1.5)


def test_a_token_outside_the_codebook_is_an_error():
    with pytest.raises(ValueError, match="token 9"):
        codebook.usage(np.array([9]), codes=8).__next__()
