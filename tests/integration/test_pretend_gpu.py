"""Every stage that works with nets, on a pretend GPU: nothing meets on two devices, and it learns as on a processor."""

import json
import multiprocessing
import os
import runpy
import sys

import pytest

from data.photos import benchmark
from tests import code
from tests.integration.test_ranks import exact, losses
from tests.integration.test_resume_stages import CHAIN, PARAMS, files, pack

pytestmark = pytest.mark.integration


def run(home, name, out, on_gpu, call=None):
    """One stage as its command runs it, or a call; in a process of its own."""
    os.chdir(home)
    code.put(home)
    os.environ |= {"REMINT_CHECKPOINTS": str(home / "checkpoints"), "MLFLOW_TRACKING_URI": ""}
    log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if on_gpu:
        from tests import pretend

        pretend.install()
    if call:
        return call()
    module, *arguments = CHAIN[name].split()
    sys.argv = [module, *arguments, "--out", out]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    if on_gpu:
        products = sum(n for op, n in pretend.operations.items() if any(w in str(op) for w in ("mm", "convolution")))
        sys.stderr.write(f"products on the device: {products}\n")


@pytest.fixture(scope="module")
def stage():
    """Runs a stage; gives its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([line.split()[0] for line in CHAIN.values()])

    def stage(*arguments):
        process = context.Process(target=run, args=arguments)
        process.start()
        process.join()
        return process.exitcode

    return stage


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("gpu")
    (home / "params.yaml").write_text(json.dumps(exact(PARAMS)))
    pack(home / "scenes", 160, ["glass", "wires"])
    benchmark.write_motorcycle(home / "photos" / "benchmark")
    pack(home / "photos", 8, [])
    return home


@pytest.fixture(scope="module")
def said(home, stage):
    """The whole chain on the pretend GPU: each stage's exit code and words."""
    found = {}
    for name in CHAIN:
        (home / "log").unlink(missing_ok=True)
        found[name] = stage(home, name, name, True), (home / "log").read_text()
    return found


@pytest.mark.parametrize("name", CHAIN)
def test_a_stage_finds_all_it_needs_on_the_gpu(said, name):
    code, words = said[name]
    assert code == 0, words
    assert int(words.rpartition("products on the device: ")[2]) > 0


@pytest.mark.parametrize("name", ["proxy", "warmup"])
def test_a_gpu_learns_what_the_processor_learns(said, stage, home, name):
    assert stage(home, name, "by-processor", False) == 0, (home / "log").read_text()
    assert losses(home / name) == pytest.approx(losses(home / "by-processor"), rel=1e-2)
    assert files(home / name).keys() == files(home / "by-processor").keys()


def test_what_meets_on_two_devices_is_refused(tmp_path, stage):
    assert stage(tmp_path, "", "", True, meet) == 0, (tmp_path / "log").read_text()


def meet():
    """What the other tests rely on."""
    import torch

    there, here = torch.ones(3, 3, device="pretend"), torch.ones(3, 3)
    assert float((there * 2 + there).sum()) == 27
    assert there[torch.tensor([0, 2])].device.type == "pretend"
    for wrong in (
        lambda: there + here,
        lambda: torch.nn.functional.linear(there, here),
        lambda: there.copy_(here).add_(here),
        lambda: torch.rand(3, device="pretend", generator=torch.Generator()),
    ):
        with pytest.raises(RuntimeError, match="same device|expected a 'pretend' generator"):
            wrong()
    with pytest.raises(TypeError, match="to numpy"):
        there.numpy()
