import pytest
import torch

from data.core.params import UserError
from models.core.quantizer import VectorQuantizer, starting


def quantizer(codebook, **options):
    net = VectorQuantizer(*codebook.shape, **options)
    net.codebook.copy_(codebook)
    return net.eval()


def test_each_vector_gets_the_nearest_code():
    net = quantizer(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 3.0]]))
    quantised, index, commitment = net(torch.tensor([[0.9, 0.1], [0.1, 2.0]]))
    assert index.tolist() == [1, 2]
    torch.testing.assert_close(quantised, torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    assert float(commitment) == pytest.approx((0.01 + 0.01 + 0.01 + 1.0) / 4)


def test_on_the_sphere_only_directions_count():
    net = quantizer(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), unit=True)
    assert net(torch.tensor([[9.0, 8.0], [0.01, 0.02]]))[1].tolist() == [0, 1]


def test_the_gradient_passes_straight_through():
    net, z = quantizer(torch.randn(4, 3)), torch.randn(5, 3, requires_grad=True)
    net(z)[0].sum().backward()
    torch.testing.assert_close(z.grad, torch.ones_like(z))


def test_k_means_finds_separate_clusters():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    random = torch.Generator().manual_seed(0)
    z = centres.repeat(200, 1) + 0.1 * torch.randn(800, 2, generator=random)
    net = VectorQuantizer(16, 2)
    net.start(z, rounds=5)
    assert net.eval()(z)[2] < 0.1


def test_a_k_means_start_needs_a_vector_for_each_code():
    with pytest.raises(ValueError, match="as many vectors, got 3"):
        VectorQuantizer(4, 2).start(torch.randn(3, 2))


def test_codes_follow_the_vectors_that_choose_them():
    net = quantizer(torch.tensor([[0.0], [10.0]]), decay=0.5).train()
    net.sums.copy_(net.codebook)
    net(torch.tensor([[2.0], [12.0]]))
    torch.testing.assert_close(net.codebook, torch.tensor([[1.0], [11.0]]))


def test_a_code_nobody_chooses_moves_to_a_vector_of_the_batch():
    net = quantizer(torch.tensor([[0.0], [1000.0]]), decay=0.5).train()
    z = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    for _ in range(3):
        net(z)
    assert net.codebook.max() <= 4


def test_revival_is_the_same_each_time():
    z = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    ends = []
    for _ in range(2):
        torch.manual_seed(7)
        net = VectorQuantizer(128, 3)
        for _ in range(5):
            net(z)
        ends.append(net.codebook.clone())
        torch.rand(3)  # another state of the global generator must not matter
    assert torch.equal(*ends)


def test_assigning_codes_never_moves_them():
    net, z = VectorQuantizer(8, 3).train(), torch.randn(20, 3)
    before = net.codebook.clone()
    index = net.assign(z)
    assert torch.equal(net.codebook, before)
    assert torch.equal(index, net.eval()(z)[1])


def test_evaluation_leaves_the_codebook_alone():
    net = VectorQuantizer(8, 3).eval()
    before = net.codebook.clone()
    net(torch.randn(20, 3))
    assert torch.equal(net.codebook, before)


def test_a_codebook_starts_from_a_seeded_sample_of_the_whole_training_set():
    images = torch.arange(3000)
    chosen = starting(images, seed=0, codes=512, places=1)
    assert len(chosen) == 512
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert chosen.float().mean() == pytest.approx(1500, abs=100)  # of the first 512 it would be 256
    assert torch.equal(chosen, starting(images, seed=0, codes=512, places=1))
    assert not torch.equal(chosen, starting(images, seed=1, codes=512, places=1))
    assert torch.equal(starting(images[:40], 0, 32, 1), images[:40])  # all of a small one


def test_more_codes_than_vectors_are_refused_before_training():
    with pytest.raises(UserError, match="65 codes cannot start from 2 vectors in each of 32 pictures"):
        starting(torch.zeros(32), seed=0, codes=65, places=2)
