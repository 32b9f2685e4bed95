"""Muon: the rule of torch's own, matrices of one shape together, in the number format that the device multiplies."""

import pytest
import torch

from models.core import device, muon

SHAPES = [(24, 8), (24, 8), (8, 24), (8, 8), (5, 3)]


@pytest.fixture(params=[True, False], ids=["bfloat16", "float32"])
def bfloat16(request, monkeypatch):
    monkeypatch.setattr(device, "multiplies_bfloat16", lambda place: request.param)
    return request.param


def trained(make, steps=5):
    random = torch.Generator().manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in SHAPES]
    optimiser = make(matrices)
    for _ in range(steps):
        for p in matrices[:-1]:  # the last has no gradient, as a critic that has not joined yet
            p.grad = torch.randn(p.shape, generator=random)
        optimiser.step()
    return [p.detach() for p in matrices]


def test_the_steps_are_those_of_torch(bfloat16):
    ours = trained(lambda matrices: muon.Muon(matrices, lr=0.02, weight_decay=0.1))
    theirs = trained(lambda matrices: torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="original"))
    # theirs rounds to bfloat16's eight bits; five steps of .02 times sqrt(3)
    assert max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)) < 2e-3
    assert torch.equal(ours[-1], theirs[-1])


def test_an_orthogonal_update_has_singular_values_near_one(bfloat16):
    for one in muon.orthogonal([torch.randn(shape, generator=torch.Generator().manual_seed(3)) for shape in SHAPES]):
        values = torch.linalg.svdvals(one.float())
        assert float(values.min()) > 0.6
        assert float(values.max()) < 1.3


def test_an_update_does_not_depend_on_what_is_made_orthogonal_beside_it():
    updates = [torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n, shape in enumerate(SHAPES)]
    together, apart = muon.orthogonal(updates), [muon.orthogonal([one])[0] for one in updates]
    for one, other in zip(together, apart, strict=True):
        assert one.float() == pytest.approx(other.float(), abs=1e-5 if one.dtype == torch.float32 else 2e-2)


def test_nothing_but_matrices_is_taken():
    with pytest.raises(ValueError, match=r"matrices, not a parameter of shape \(3,\)"):
        muon.Muon([torch.nn.Parameter(torch.zeros(3))], lr=0.1, weight_decay=0.0)


def test_auto_is_what_the_device_multiplies_and_what_is_asked_for_stays(bfloat16):
    assert device.precision("auto") == ("bf16-mixed" if bfloat16 else "32-true")
    assert [device.precision(name) for name in ("32-true", "bf16-mixed")] == ["32-true", "bf16-mixed"]


def test_a_processor_multiplies_bfloat16_from_avx_512_on(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert device.multiplies_bfloat16(torch.device("cpu"))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not device.multiplies_bfloat16(torch.device("cpu"))
