"""The chunked scan beside the recurrence as it is written, one token after the other."""

import pytest
import torch
from torch.autograd import grad, gradcheck

from models.samba import scan

LENGTHS = [(1, 4), (3, 4), (4, 4), (7, 4), (33, 8), (70, 64), (9, 1)]  # tokens, and those of a chunk


def sequential(dt, x, a, b, c):
    state, ys = torch.zeros(len(dt), *a.shape, dtype=dt.dtype), []
    for t in range(dt.shape[1]):
        state = torch.exp(dt[:, t, :, None] * a) * state + (dt[:, t] * x[:, t])[..., None] * b[:, t, None, :]
        ys.append(torch.einsum("ben,bn->be", state, c[:, t]))
    return torch.stack(ys, dim=1)


def inputs(length, dtype, rows=2, channels=6, states=5, rate=16.0):
    random = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype).requires_grad_()

    dt = torch.rand(rows, length, channels, generator=random, dtype=torch.float64)
    a = -rate * torch.rand(channels, states, generator=random, dtype=torch.float64)
    dt, a = ((0.1 * dt).to(dtype).requires_grad_(), a.to(dtype).requires_grad_())
    return dt, normal(rows, length, channels), a, normal(rows, length, states), normal(rows, length, states)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("length", "chunk"), LENGTHS)
def test_it_is_the_sequential_scan_and_so_is_its_gradient(length, chunk, dtype):
    given = inputs(length, dtype)
    expected, found = sequential(*given), scan.selective_scan(*given, chunk=chunk)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype is torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(found, expected, **close)
    toward = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    for one, other in zip(grad((found * toward).sum(), given), grad((expected * toward).sum(), given), strict=True):
        torch.testing.assert_close(one, other, **close)


def test_its_gradient_is_that_of_differences():
    given = inputs(5, torch.float64, rows=1, channels=2, states=2)
    assert gradcheck(lambda *some: scan.selective_scan(*some, chunk=2), given)


@pytest.mark.parametrize("chunk", [16, 300])
def test_decays_that_underflow_and_inputs_of_any_size_stay_finite(chunk):
    dt, x, a, b, c = inputs(300, torch.float32, rate=1e4)
    given = [one.detach().requires_grad_() for one in (50 * dt, 1e6 * x, a, b, c)]
    y = scan.selective_scan(*given, chunk=chunk)
    torch.testing.assert_close(y, sequential(*given), rtol=1e-5, atol=1e-2)
    assert all(one.isfinite().all() for one in grad(y.sum(), given))


def test_steps_one_by_one_are_the_scan():
    dt, x, a, b, c = (one.detach() for one in inputs(9, torch.float64))
    state, ys = torch.zeros(2, 6, 5, dtype=torch.float64), []
    for t in range(9):
        state, y = scan.selective_step(state, dt[:, t], x[:, t], a, b[:, t], c[:, t])
        ys.append(y)
    torch.testing.assert_close(torch.stack(ys, 1), scan.selective_scan(dt, x, a, b, c, chunk=4))


def test_under_autocast_it_reckons_in_float32():
    dt, x, a, b, c = inputs(20, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = scan.selective_scan(dt.bfloat16(), x, a, b, c, chunk=8)
        gradient = grad(found.sum(), x)[0]
    assert found.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(found, sequential(dt.bfloat16().float(), x, a, b, c), rtol=1e-5, atol=1e-5)


def test_what_is_kept_for_the_gradient_does_not_hold_the_states_of_all_tokens():
    given = inputs(512, torch.float32, channels=8, states=16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda one: kept.append(one.numel()) or one, lambda one: one):
        scan.selective_scan(*given, chunk=64)
    assert max(kept) <= 2 * 512 * 16  # the states would be 8 times that
