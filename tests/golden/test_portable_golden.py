"""`portable: true` gives these very bits on every x86-64 processor with AVX2, whatever the environment says of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.core import portable
from tests import processors

ROOT = Path(__file__).parents[2]
EXPECTED = {  # of each training: its held-out loss and a digest of its weights
    "depth": "7.078792572021484 36bded1403d5b9b1",
    "maskgit": "2.6822004318237305 bd36d6e7da9ca4f0",
    "samba": "2.5571603775024414 f759be6f15093e5d",
    "proxy": "0.11549287289381027 fe1d1e5d9c8bc958",
    "tokenizer-warmup": "5.443027973175049 85f9457f7486d46c",
    "tokenizer": "0.21544639766216278 65a53349f5c19d76",
    "fwd": "2.6696107123556962",
    "ssim": "0.01844540927430029",
    "plane": "0.5010046707001202",
}


def start(folder: Path, variables: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.golden.portable"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**variables, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_trainings_and_metrics_have_the_committed_bits_on_every_processor(tmp_path):
    (tmp_path / "params.yaml").write_text("portable: true\n")
    for process in [start(tmp_path, processors.environment(name)) for name in processors.PROCESSORS]:
        said, complaints = process.communicate()
        assert process.returncode == 0, complaints
        assert json.loads(said.splitlines()[-1]) == EXPECTED


@pytest.mark.soak
@pytest.mark.parametrize("processor", processors.PROCESSORS)
def test_without_portable_other_processors_give_other_bits(tmp_path, processor):
    processors.needs(processor)
    (tmp_path / "params.yaml").write_text("portable: false\n")
    process = start(tmp_path, processors.environment(processor))
    found = json.loads(process.communicate()[0].splitlines()[-1])
    assert all(found[name] != EXPECTED[name] for name in ("depth", "maskgit", "proxy", "tokenizer-warmup", "tokenizer"))


def test_products_by_openblas_are_those_of_torch():
    from models.core import products

    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 5, 7, generator=random), torch.randn(3, 7, 4, generator=random)
    for one, other in (
        (a, b),
        (a.double(), b.double()),
        (a[0], b[0]),
        (a.mT.contiguous().mT, b),
        (a[..., ::2], b[:, ::2]),
    ):
        torch.testing.assert_close(products.product(one, other), one @ other)
    rough = products.product(a.bfloat16(), b.bfloat16())
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough, a.bfloat16() @ b.bfloat16(), rtol=0.02, atol=0.02)
    added = torch.addmm(torch.ones(4), a[0], b[0], beta=0.5, alpha=2)
    torch.testing.assert_close(products._add(torch.ones(4), a[0], b[0], beta=0.5, alpha=2), added)


def test_a_portable_process_has_nothing_else_said_to_it():
    contrary = {"DNNL_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "AVX2", "HOME": "/home/ann"}
    assert not portable.active(contrary)
    made = portable.surroundings(contrary)
    assert portable.active(made)
    assert made == {"HOME": "/home/ann", **portable.VARIABLES}
    assert not portable.active({**made, "ONEDNN_DEFAULT_FPMATH_MODE": "BF16"})


def test_a_processor_without_what_is_needed_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("portable: true\n")
    monkeypatch.setattr(portable, "_features", lambda: {"avx", "fma"})
    monkeypatch.setattr(os, "execve", lambda *words: pytest.fail("started"))
    with pytest.raises(portable.UserError, match="this one lacks avx2, bmi2, f16c"):
        portable.enter()
    (tmp_path / "params.yaml").write_text("portable: yes please\n")
    with pytest.raises(portable.UserError, match="portable must be true or false, not 'yes please'"):
        portable.enter()


def test_a_stage_starts_itself_again_with_the_same_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr(os, "execve", lambda *words: started.append(words))
    monkeypatch.setattr(portable, "_features", lambda: portable.NEEDED)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "models.proxy.train", "--out", "a b"])
    for text in ("portable: false\n", "seed: 1\n", "portable: true\n"):
        (tmp_path / "params.yaml").write_text(text)
        portable.enter()
    [(program, words, variables)] = started
    assert (program, words) == (sys.executable, [sys.executable, "-m", "models.proxy.train", "--out", "a b"])
    assert portable.active(variables)
