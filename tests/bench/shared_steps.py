"""A training step by one process, and by two that share it: DistributedDataParallel, and FSDP over shares of the net.

for name, seconds in shared_steps.measured(6): ...     # best of some steps; one thread each
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parents[2]))

from models.core import device, sharding
from models.core.optim import muon_adamw
from models.maskgit.generator import Net as MaskGit
from tests.workers import free_port

BATCH = 64
VARIANTS = {"one process": 1, "fsdp, two processes": 2, "ddp, two processes": 2}


def measured(steps: int, variants: int = len(VARIANTS)) -> Iterator[tuple[str, float]]:
    """The first so many variants: each one's best time of a step."""
    for name, world in list(VARIANTS.items())[:variants]:
        results = multiprocessing.get_context("spawn").SimpleQueue()
        multiprocessing.spawn(_steps, (name, world, steps, free_port(), results), world)
        yield name, results.get()


def _steps(rank: int, name: str, world: int, steps: int, port: int, results: multiprocessing.SimpleQueue) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net: nn.Module = MaskGit(codes=1024, classes=10, length=32, dim=128, depth=4, heads=2)
    if world > 1:
        known = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": world}
        os.environ |= {key: str(value) for key, value in known.items()}
        distributed.init_process_group("gloo")
        net = DistributedDataParallel(net) if name.startswith("ddp") else sharding.shard(net, _mesh(world))
    optimisers = muon_adamw(net, 0.02, 1e-3)
    tokens = torch.randint(1024, (BATCH // world, 32))
    labels = torch.randint(10, (BATCH // world,))
    best = float("inf")
    for _ in range(steps):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=device.multiplies_bfloat16(torch.device("cpu"))):
            logits = net(tokens, labels)
        nn.functional.cross_entropy(logits.float().mT, tokens).backward()
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
        best = min(best, time.perf_counter() - began)
    if rank == 0:
        results.put(best)
    if world > 1:
        distributed.destroy_process_group()


def _mesh(world: int):
    return init_device_mesh("cpu", (world,))
