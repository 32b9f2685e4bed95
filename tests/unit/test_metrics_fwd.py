"""The Fréchet wavelet distance against cases worked out by hand."""

import numpy as np
import pytest
import torch

from models.metrics import fwd


def noise(n, size=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_frechet_distance_of_two_one_dimensional_gaussians():
    # N(0, 4) and N(3, 9): 3^2 + (2 - 3)^2 = 10
    a, b = torch.tensor([0.0]), torch.tensor([3.0])
    assert fwd.frechet_distance(a, torch.tensor([[4.0]]), b, torch.tensor([[9.0]])).item() == pytest.approx(10)


def test_frechet_distance_of_covariances_that_do_not_commute():
    # tr (AB)^1/2 of 2 x 2 matrices is sqrt(tr AB + 2 sqrt(det AB)); here AB has trace 9 and determinant 8
    a = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[2.5, 1.5**0.5], [1.5**0.5, 2.2]], dtype=torch.float64)
    trace, det = torch.trace(a @ b), torch.det(a @ b)
    by_hand = 3 + 4.7 - 2 * torch.sqrt(trace + 2 * det.sqrt())
    zero = torch.zeros(2, dtype=torch.float64)
    assert fwd.frechet_distance(zero, a, zero, b).item() == pytest.approx(by_hand.item())


def test_frechet_distance_stands_singular_covariances():
    flat = torch.diag(torch.tensor([4.0, 0.0]))
    other = torch.diag(torch.tensor([0.0, 1.0]))
    zero = torch.zeros(2)
    assert fwd.frechet_distance(zero, flat, zero, other).item() == pytest.approx(5)  # nothing shared: 4 + 1


def test_haar_packets_of_two_by_two_pixels():
    image = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)[None, :, :, None]
    packets = fwd.features(image, level=1)[0, :, 0].tolist()
    assert packets == pytest.approx([5, -1, -2, 0])  # (sum, left - right, top - bottom, diagonal) / 2


def test_a_level_of_packets_is_the_haar_transform_of_the_packets_before():
    image = np.random.default_rng(1).random((1, 4, 4, 1), dtype=np.float32)
    once = fwd.features(image, level=1).reshape(4, 2, 2)
    again = fwd.features(once[..., None], level=1)  # each packet taken as a picture
    both = fwd.features(image, level=2)
    assert sorted(both.flatten().tolist()) == pytest.approx(sorted(again.flatten().tolist()), abs=1e-6)


def test_packets_keep_the_squared_sum():
    images = noise(3, size=32)
    want = (torch.as_tensor(images).double() / 255).square().sum()
    assert fwd.features(images).double().square().sum().item() == pytest.approx(want.item(), rel=1e-5)


def test_two_sets_of_flat_grey_differ_by_their_grey_alone():
    # no spread; only the lowest packet sees a constant: 16 d in each of its 1 x 1 x 3 dimensions,
    # so 3 (16 d)^2 over 256 packets = 3 d^2
    a, b = np.full((2, 16, 16, 3), 51, np.uint8), np.full((2, 16, 16, 3), 102, np.uint8)
    assert fwd.fwd(a, b) == pytest.approx(3 * 0.2**2, rel=1e-4)


def test_a_set_is_at_distance_zero_from_itself_in_any_order():
    images = noise(40)
    assert fwd.fwd(images, images[::-1].copy()) == pytest.approx(0, abs=1e-4)


def test_bytes_and_floats_of_the_same_pictures_agree():
    a, b = noise(8), noise(8, seed=1)
    assert fwd.fwd(a, b) == pytest.approx(fwd.fwd(a / np.float32(255), torch.as_tensor(b) / 255), rel=1e-5)


def test_blur_is_seen():
    sharp, other = noise(60), noise(60, seed=1)
    blurred = (other.astype(np.uint16) + np.roll(other, 1, axis=1)) // 2
    assert fwd.fwd(sharp, blurred.astype(np.uint8)) > 2 * fwd.fwd(sharp, other)


def test_sides_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 16, not 24 x 24"):
        fwd.features(noise(2, size=24))
