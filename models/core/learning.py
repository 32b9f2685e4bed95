"""Parameters that every training has. No module of parameters imports torch: a plan checks all of them in no time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from data.core import params
from data.core.params import Range, Seed, UserError

T = TypeVar("T")
Rate = Annotated[float, Range(above=0, most=1)]  # of learning
Weight = Annotated[float, Range(0, 10**6)]  # of a loss; 0 leaves it out
Batch = Annotated[int, Range(1, 65_536)]
Threads = Annotated[int, Range(1, 1024, why=": as many as torch uses, since the bytes depend on it")]
Width = Annotated[int, Range(1, 16_384)]
Heads = Annotated[int, Range(1, 1024)]
Layers = Annotated[int, Range(1, 200)]
STARTING = 512  # pictures from whose vectors a codebook starts, by k-means
MEETING = ("TORCHELASTIC_RUN_ID", "NODE_RANK", "GROUP_RANK", "SLURM_JOB_ID")  # set where somebody starts all nodes


@dataclass(frozen=True)
class Accelerate:
    """Section `accelerate`: processes on each node (one per GPU, where there are any), nodes, and what they share.

    ddp (and auto): every process has all of the net and a slice of the batch. fsdp: of the net it has only its share.
    """

    devices: Annotated[int, Range(1, 1024)] = 1
    nodes: Annotated[int, Range(1, 1024)] = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"

    @property
    def world(self) -> int:
        return self.devices * self.nodes

    def share(self, batch: int) -> int:
        """Samples of a batch for each rank."""
        if batch % self.world:
            raise UserError(
                f"batch is {batch}, which {self.devices} devices x {self.nodes} nodes (accelerate) cannot share evenly"
                f"; make it a multiple of {self.world}"
            )
        return batch // self.world

    def trainer(self) -> dict[str, Any]:
        """The arguments of Lightning's Trainer."""
        self.meet()
        return {"devices": self.devices, "num_nodes": self.nodes, "strategy": self._strategy()}

    def meet(self) -> None:
        """UserError where the other processes will never come: this one would wait for them for ever."""
        started = int(os.environ.get("WORLD_SIZE", self.world)) if "TORCHELASTIC_RUN_ID" in os.environ else self.world
        if started != self.world:
            raise UserError(
                f"torchrun started {started} processes, but accelerate asks for {self.devices} devices x {self.nodes} "
                "nodes; make them equal"
            )
        if self.nodes > 1 and not any(name in os.environ for name in MEETING):
            raise UserError(
                f"accelerate.nodes is {self.nodes}, but nobody starts the other nodes and this one would wait for them "
                "for ever; start all of them with torchrun (docs/stack.md, Several nodes), or set it to 1"
            )

    def _strategy(self) -> Any:
        if self.world == 1:
            return "auto"
        if self.strategy == "fsdp":
            from models.core.sharding import Sharded

            return Sharded()
        from lightning.pytorch.strategies import DDPStrategy

        # a critic that has not joined yet has no gradients; buffers are kept equal by `total` and `gather`
        return DDPStrategy(find_unused_parameters=True, forward_sync_buffers=False)


ALONE = Accelerate()


@dataclass(frozen=True, kw_only=True)
class Learning:
    """The parameters that every training has: rates for Muon and for AdamW, the rest as in `training.Fit`."""

    steps: Annotated[int, Range(1, 10**8)]
    batch: Batch
    warmup: Annotated[int, Range(0)]  # steps
    muon_lr: Rate
    lr: Rate
    ema: Annotated[float, Range(0, below=1)]
    clip: Annotated[float, Range(above=0)]
    precision: Literal[
        "auto", "32-true", "bf16-mixed"
    ]  # 16-mixed would need its gradients unscaled before they are clipped

    def __post_init__(self) -> None:
        if self.warmup > self.steps:
            raise ValueError(f"warmup is {self.warmup}, more than all steps ({self.steps})")


@dataclass(frozen=True, kw_only=True)
class Training(Learning):
    """A training whose section holds these parameters itself."""

    seed: Seed
    threads: Threads
    portable: bool = False  # said here for the plan; what it does: `data.core.portable`
    accelerate: Accelerate = ALONE

    def __post_init__(self) -> None:
        super().__post_init__()
        self.accelerate.share(self.batch)


@dataclass(frozen=True, kw_only=True)
class Quantised(Training):
    """One that starts without quantisation: `bypass` is the share of steps before it sets in."""

    bypass: Annotated[float, Range(0, below=1)]
    commitment: Weight

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.quantises_from >= self.steps:
            raise ValueError(f"bypass {self.bypass} leaves none of {self.steps} steps with quantisation; lower it")

    @property
    def quantises_from(self) -> int:
        """The first step that quantises."""
        return round(self.bypass * self.steps)


def load(cls: type[T], section: str) -> T:
    """`params.load` for a training, refused before any data is read where its processes will never meet."""
    made: Any = params.load(cls, section)
    made.accelerate.meet()
    return made
