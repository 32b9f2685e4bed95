"""Training by several processes: who this one is, and what they have to agree on. Alone, everything is the identity.

    accelerate: {devices: 2, nodes: 1, strategy: ddp}      Lightning starts the other processes of the machine
    torchrun --nproc-per-node 2 --nnodes 4 ... -m models.proxy.train ...    or they are started on every node

Each rank takes its slice of the same global batch, so `batch` is that of all together, and the gradients are averaged
(DistributedDataParallel, or `models.core.sharding`). Losses that divide by a sum over the batch, and moving averages of
batches, take the global one (`mean`, `total`, `gather`). Rank 0 alone writes, tracks and keeps checkpoints.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor, distributed


def rank() -> int:
    """This process's number, before and after the processes know each other."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank()
    if "RANK" in os.environ:  # torchrun
        return int(os.environ["RANK"])
    local, node = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("NODE_RANK", 0))
    return local + node  # of a process that Lightning started: all that counts so early is whether it is 0


def world() -> int:
    """How many processes train together; 1 before and after."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def means(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The means of several numbers over all ranks, in one message."""
    if world() == 1:
        return values
    return dict(zip(values, mean(torch.stack([x.float() for x in values.values()])), strict=True))


def total(x: Tensor) -> Tensor:
    """The sum over all ranks, without gradient."""
    if world() == 1:
        return x
    summed = x.detach().clone()
    distributed.all_reduce(summed)
    return summed


def mean(x: Tensor) -> Tensor:
    """The mean over all ranks, without gradient."""
    return x if world() == 1 else total(x) / world()


def gather(x: Tensor) -> Tensor:
    """The rows of all ranks, in their order: those of the global batch."""
    if world() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world())]
    distributed.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


def like(x: Tensor, other: Tensor) -> Tensor:
    """x on the device of `other`, and this rank's share of it where `other` is sharded."""
    if not hasattr(other, "placements"):
        return x.to(other.device)
    from models.core.sharding import cut

    return cut(x, other)


def share(x: Tensor) -> Tensor:
    """What of a tensor lies in this process, to be changed in place: all of it, unless it is sharded."""
    return x.to_local() if hasattr(x, "to_local") else x


def leave() -> None:
    """Training is over: from here on every process is alone."""
    if world() > 1:
        distributed.barrier()
        distributed.destroy_process_group()
