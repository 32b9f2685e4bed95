"""The sliding window beside attention with a mask over all pairs, the rotary positions, and the ring of keys."""

import math

import pytest
import torch

from models.samba import attention
from models.samba.attention import WindowAttention


def naive(q, k, v, window):
    length = q.shape[2]
    distance = torch.arange(length)[:, None] - torch.arange(length)
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    return scores.masked_fill((distance < 0) | (distance >= window), -math.inf).softmax(-1) @ v


def heads(length, dtype=torch.float32):
    return torch.randn(3, 2, 2, length, 4, generator=torch.Generator().manual_seed(0), dtype=dtype).unbind()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("length", "window"), [(1, 1), (5, 1), (5, 2), (8, 4), (9, 4), (11, 4), (4, 4), (7, 100)])
def test_blocks_are_the_masked_attention_over_all_pairs(length, window, dtype):
    q, k, v = heads(length, dtype)
    found = attention.attend(q, k, v, window)
    torch.testing.assert_close(found, naive(q, k, v, window), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("window", [1, 3, 4])
def test_a_token_beyond_the_window_has_no_influence(window):
    net = WindowAttention(16, 2, window).double()
    x = torch.randn(1, 14, 16, dtype=torch.float64, requires_grad=True)
    for place in range(14):
        moved = torch.autograd.grad(net(x)[0, place].sum(), x)[0][0].abs().sum(-1) > 0
        assert moved.tolist() == [place - window < other <= place for other in range(14)]


def test_without_a_window_all_before_is_seen_and_nothing_after():
    net = WindowAttention(16, 2, None)
    x = torch.randn(1, 9, 16, requires_grad=True)
    moved = torch.autograd.grad(net(x)[0, 6].sum(), x)[0][0].abs().sum(-1) > 0
    assert moved.tolist() == [True] * 7 + [False] * 2


def test_positions_turn_pairs_of_channels_by_their_angle():
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    turned = attention.rotate(x, attention.rotations(5, 3, 6, x.device))
    for row, position in enumerate((5, 6, 7)):
        for channel in range(3):
            angle = position / 10_000 ** (2 * channel / 6)
            pair = complex(x[row, channel], x[row, channel + 3]) * complex(math.cos(angle), math.sin(angle))
            assert turned[row, channel].item() == pytest.approx(pair.real, abs=1e-6)
            assert turned[row, channel + 3].item() == pytest.approx(pair.imag, abs=1e-6)


def test_scores_depend_on_distances_alone_even_at_position_16_000():
    q, k = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(0))

    def score(first):
        turned = [attention.rotate(x, attention.rotations(p, 1, 64, x.device)) for x, p in ((q, first + 7), (k, first))]
        return (turned[0] @ turned[1].mT).item()

    assert score(16_000) == pytest.approx(score(0), abs=1e-4)


@pytest.mark.parametrize("window", [1, 3, 20, None])
def test_a_ring_of_keys_gives_what_the_whole_sequence_gives(window):
    net = WindowAttention(16, 2, window).double()
    x = torch.randn(2, 11, 16, dtype=torch.float64)
    state, ys = net.start(2, 11), []
    for place in range(11):
        y, state = net.step(x[:, place], state, place)
        ys.append(y)
    torch.testing.assert_close(torch.stack(ys, 1), net(x))
    assert state[0].shape[2] == min(window or 11, 11)


def test_time_and_memory_are_linear_in_the_length():
    """Of scores: what is kept for the gradient grows with the length, not with its square."""

    def kept(length):
        sizes = []
        q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 1, length, 4).unbind())
        with torch.autograd.graph.saved_tensors_hooks(lambda one: sizes.append(one.numel()) or one, lambda one: one):
            attention.attend(q, k, v, 8)
        return max(sizes)

    assert kept(512) == 8 * kept(64)


@pytest.mark.parametrize(("dim", "count"), [(15, 2), (6, 2), (8, 3)])
def test_heads_that_do_not_divide_are_refused(dim, count):
    with pytest.raises(ValueError, match=f"dim {dim} is not an even multiple of heads {count}"):
        WindowAttention(dim, count, 4)
