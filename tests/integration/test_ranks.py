"""Trainings by two processes: the losses of one process, the same bytes each time, and going on after a kill."""

import csv
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

from data.core.params import UserError, build
from models.core import learning, sharding, training
from models.maskgit.generator import Net as MaskGit
from tests.integration.test_resume_stages import CHAIN, DRIVER, EVERY, PARAMS, STEPS, files, pack
from tests.workers import free_port

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
TRAINED = ["proxy", "warmup", "tokenizer", "generator", "teacher"]
QUICK = [("tokenizer", "ddp"), ("tokenizer", "fsdp"), ("generator", "fsdp")]  # a critic too; a loss over a sum of all


def exact(values: dict) -> dict:
    """The same parameters in single precision and without dropout, where two processes could differ more."""
    plain = {"precision": "32-true", "dropout": 0.0}
    return {k: plain.get(k, exact(v) if isinstance(v, dict) else v) for k, v in values.items()}


@pytest.fixture(scope="module")
def start():
    """Starts a stage as one or two processes, forked from one that has imported everything; gives the processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([CHAIN[name].split()[0] for name in TRAINED])

    def start(home: Path, name: str, out: str, world: int = 1, *when, strategy: str = "ddp") -> list:
        accelerate = {"devices": world, "strategy": strategy}
        (home / "params.yaml").write_text(json.dumps(exact(PARAMS) | {"accelerate": accelerate}))
        module, _, arguments = CHAIN[name].partition(" ")
        processes = []
        port = free_port()
        for rank in range(world):
            known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
            known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": 0}
            named = {k: str(v) for k, v in known.items()} if world > 1 else {}  # what torchrun says
            moment = when if rank == world - 1 else ()
            call = (str(home), module, f"{arguments} --out {out}", EVERY, *(moment or ("", 0, 9)), named)
            process = context.Process(target=runpy.run_path, args=(str(DRIVER), {"CALL": call}, "__main__"))
            process.start()
            processes.append(process)
        return processes

    return start


@pytest.fixture(scope="module")
def run(start):
    def run(home: Path, name: str, out: str, world: int = 1, strategy: str = "ddp") -> None:
        processes = start(home, name, out, world, strategy=strategy)
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * world, (home / "log").read_text()

    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory, run):
    """A folder in which the chain ran in one process."""
    home = tmp_path_factory.mktemp("alone")
    pack(home / "scenes", 48, ["glass", "wires"])
    for name in ("proxy", "warmup", "tokenizer", "tokens", "generator"):
        run(home, name, name)
    return home


def losses(folder: Path) -> list[float]:
    with (folder / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [float(v) for row in rows for k, v in row.items() if k.endswith("_loss") and v]


def by_two(run, home: Path, name: str, strategy: str = "ddp") -> Path:
    """What two processes make of a training; made once."""
    made = home / f"{name}-by-two-{strategy}"
    if not made.exists():
        before = ended(home)
        run(home, name, made.name, 2, strategy)
        assert ended(home) == before + 1  # the first of two alone says it
    return made


def ended(home: Path) -> int:
    """How many trainings have said that they are at their last step."""
    return (home / "log").read_text().count(f"step {STEPS}/{STEPS}") if (home / "log").exists() else 0


def compared(run, home: Path, name: str, strategy: str = "ddp", tolerance: float = 1e-3) -> None:
    """Muon rounds to bfloat16, so that another order of a sum shows in the fourth digit after some steps."""
    made = by_two(run, home, name, strategy)
    assert losses(made) == pytest.approx(losses(home / name), rel=tolerance)


def repeated(run, home: Path, name: str, strategy: str) -> None:
    made = by_two(run, home, name, strategy)
    shutil.rmtree(home / "again", ignore_errors=True)
    run(home, name, "again", 2, strategy)
    assert files(home / "again") == files(made)


@pytest.mark.parametrize(("name", "strategy"), QUICK)
def test_two_processes_learn_what_one_learns(run, home, name, strategy):
    compared(run, home, name, strategy, 1e-3 if strategy == "ddp" else 1e-2)


@pytest.mark.parametrize(
    ("strategy", "moment", "number"), [("ddp", "before", signal.SIGKILL), ("fsdp", "within", signal.SIGTERM)]
)
def test_a_training_by_two_goes_on_after_one_was_ended(start, run, home, strategy, moment, number):
    whole = by_two(run, home, "generator", strategy)
    processes = start(home, "generator", "cut", 2, moment, 8, number, strategy=strategy)
    processes[1].join(120)
    if number == signal.SIGKILL:
        processes[0].join(60)  # the other loses its peer, as under torchrun, which would end it
        assert processes[0].exitcode not in (0, None)
    else:
        processes[0].join(60)
        assert [process.exitcode for process in processes] == [128 + signal.SIGTERM] * 2
    assert any((home / "checkpoints").iterdir())
    (home / "log").unlink()
    run(home, "generator", "cut", 2, strategy)
    assert f"going on from step {9 if number == signal.SIGTERM else 6}\n" in (home / "log").read_text()
    assert files(home / "cut") == files(whole)
    assert not any((home / "checkpoints").iterdir())
    shutil.rmtree(home / "cut")


@pytest.mark.soak
def test_torchrun_starts_it_too(run, home):
    forked = by_two(run, home, "proxy")
    module, *arguments = CHAIN["proxy"].split()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, "-m", module, *arguments, "--out", "started"],
        cwd=home, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files(home / "started") == files(forked)


@pytest.mark.soak
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", TRAINED)
def test_every_training_can_be_shared(run, home, name, strategy):
    if not (home / name).exists():
        run(home, name, name)
    compared(run, home, name, strategy, 1e-2 if strategy == "ddp" else 2e-2)
    repeated(run, home, name, strategy)


def both_ways(rank: int, port: int) -> None:
    """One of two processes: a few steps on shares of a net, and on the whole of it, in single precision."""
    known = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {k: str(v) for k, v in known.items()}
    distributed.init_process_group("gloo")
    torch.manual_seed(0)
    whole = MaskGit(codes=24, classes=2, length=6, dim=16, depth=2, heads=2)
    shares = sharding.shard(whole, init_device_mesh("cpu", (2,)))
    held = sum(p.to_local().numel() for p in shares.parameters())
    assert held < 0.6 * sum(p.numel() for p in whole.parameters())
    tokens, labels = torch.randint(24, (8, 6)), torch.randint(2, (8,))
    for net, own in ((whole, slice(None)), (shares, slice(rank * 4, rank * 4 + 4))):
        optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)  # AdamW makes steps of rounding errors
        for _ in range(6):
            torch.nn.functional.cross_entropy(net(tokens[own], labels[own]).mT, tokens[own]).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimiser.step()
            optimiser.zero_grad()
    for name, value in shares.state_dict().items():
        torch.testing.assert_close(sharding.whole(value), whole.state_dict()[name], rtol=1e-4, atol=1e-5)
    distributed.destroy_process_group()


def test_steps_on_shares_are_the_steps_of_the_whole():
    context = multiprocessing.get_context("forkserver")
    port = free_port()
    processes = [context.Process(target=both_ways, args=(rank, port)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]


def test_slices_of_ranks_are_the_batch_of_one():
    def make(indices, random):
        return {"i": indices, "noise": torch.rand(len(indices), generator=random)}

    whole = training.Batches(20, 8, 5, 3, make)
    shared = [training.Batches(20, 8, 5, 3, make) for _ in range(4)]
    for rank, one in enumerate(shared):
        one.rank, one.share = rank, learning.Accelerate(devices=2, nodes=2).share(8)
    for batch, *slices in zip(whole, *shared, strict=True):
        for name, values in batch.items():
            assert torch.equal(values, torch.cat([one[name] for one in slices]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"devices": 0}, "accelerate.devices must be at least 1"),
        ({"strategy": "dpp"}, "one of auto, ddp, fsdp, not 'dpp'"),
    ],
)
def test_an_accelerate_that_cannot_be_is_refused(values, words):
    with pytest.raises(UserError, match=words):
        build(learning.Accelerate, values, "params.yaml: accelerate")


def test_what_does_not_fit_together_is_said(monkeypatch):
    with pytest.raises(UserError, match="batch is 9, which 2 devices x 1 nodes"):
        learning.Accelerate(devices=2).share(9)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="torchrun started 3 processes"):
        learning.Accelerate(devices=2).trainer()


def test_nodes_that_nobody_starts_are_not_waited_for(monkeypatch):
    for name in learning.MEETING:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"accelerate.nodes is 2, but nobody starts the other nodes"):
        learning.Accelerate(nodes=2).meet()
    monkeypatch.setenv("NODE_RANK", "1")
    learning.Accelerate(nodes=2).meet()
