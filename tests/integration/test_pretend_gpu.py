"""Every stage that works with nets, on a pretend GPU: nothing meets on two devices, and it makes what the CPU makes."""

import multiprocessing
import os
import runpy
import sys

import pytest
import yaml

from data.photos import benchmark
from tests.integration.test_ranks import exact, losses
from tests.integration.test_resume_stages import CHAIN, PARAMS, files, pack

pytestmark = pytest.mark.integration


def run(home, name, out, on_gpu, call=None):
    """One stage as its command runs it, or a call; in a process of its own."""
    os.chdir(home)
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
def home(tmp_path_factory, stage):
    """A folder in which the whole chain ran on the CPU, in single precision."""
    home = tmp_path_factory.mktemp("cpu")
    (home / "params.yaml").write_text(yaml.safe_dump(exact(PARAMS)))
    pack(home / "scenes", 160, ["glass", "wires"])
    benchmark.write_motorcycle(home / "photos" / "benchmark")
    pack(home / "photos", 8, [])
    for name in CHAIN:
        assert stage(home, name, name, False) == 0, (home / "log").read_text()
    return home


@pytest.mark.parametrize("name", CHAIN)
def test_a_stage_makes_on_a_gpu_what_it_makes_on_the_cpu(stage, home, name):
    (home / "log").unlink(missing_ok=True)
    assert stage(home, name, f"{name}-on-gpu", True) == 0, (home / "log").read_text()
    products = int((home / "log").read_text().rpartition("products on the device: ")[2])
    assert products > 0
    made, expected = home / f"{name}-on-gpu", home / name
    assert files(made).keys() == files(expected).keys()
    if (made / "curves.csv").exists():
        assert losses(made) == pytest.approx(losses(expected), rel=2e-2)
    if name == "tokens":
        assert files(made) == files(expected)


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
