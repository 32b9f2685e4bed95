"""Training with Lightning: order, schedule, averaging, validation, checkpoints for resuming.

Everything that happens at a step is a function of (seed, step) and the state before it: the batch (a stateless
permutation), its augmentation, dropout, the learning rate. So a run that was killed and resumed from a
checkpoint ends with the same bytes as one that was not.
"""

from __future__ import annotations

import logging
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from data.core import partitions, portable
from data.core.params import UserError
from models.core import device, ranks
from models.core.callbacks import Ema, Progress, Rank, Recorder, Schedule
from models.core.checkpoint.checkpoints import Checkpoints
from models.core.checkpoint.resume import Resume, SafetensorsIO
from models.core.learning import ALONE, Accelerate, Learning
from models.core.stage import Run

Batch = dict[str, Tensor]


class Batches:
    """`steps` batches over `n` samples: batch k holds the next `batch` indices of permutation(seed, epoch).

    `make(indices, generator)` turns int64 (batch,) indices into tensors; the generator is seeded by (seed, step),
    so augmentation needs no state. Iteration starts at `start`, which is all a resumed run has to know.
    """

    def __init__(
        self, n: int, batch: int, steps: int, seed: int, make: Callable[[Tensor, torch.Generator], Batch]
    ) -> None:
        if n < 1:
            raise ValueError("no samples to train on")
        self.n, self.batch, self.steps, self.seed, self.make = n, batch, steps, seed, make
        self.start = 0
        self.orders: dict[int, np.ndarray] = {}
        self.rank, self.share = 0, batch  # of a training by several processes: which one, and samples for each

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.start, self.steps):
            whole = self.make(self.indices(step), torch.Generator().manual_seed(step_seed(self.seed, step)))
            # every rank makes all of the batch, so that no sample depends on how many share it
            own = slice(self.rank * self.share, (self.rank + 1) * self.share)
            yield whole if self.share == self.batch else {name: x[own] for name, x in whole.items()}

    def indices(self, step: int) -> Tensor:
        """int64 (batch,): a batch may span two epochs, each sample comes once an epoch."""
        wanted = range(step * self.batch, (step + 1) * self.batch)
        epochs = {k // self.n for k in wanted}
        order = {e: self.orders[e] if e in self.orders else self._permutation(e) for e in epochs}
        self.orders = order  # the next step most likely wants the same epoch
        return torch.tensor([int(order[k // self.n][k % self.n]) for k in wanted])

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, epoch]).permutation(self.n)


class Task(LightningModule):
    """Glue: a net, its optimisers and one `step` for training and validation.

    `step(net, batch, progress)` returns losses by name, "loss" being minimised; `progress` in [0, 1) says how much
    of the training is done. Stages with a game of two optimisers (GAN) override `training_step`.
    """

    def __init__(
        self,
        net: nn.Module,
        optimisers: list[Optimizer],
        step: Callable[[nn.Module, Batch, float], dict[str, Tensor]],
        clip: float = 1.0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False  # two optimisers (Muon and AdamW) step on one loss
        self.net, self._optimisers, self._step, self.clip = net, optimisers, step, clip
        self.progress = 0.0  # set by the Schedule callback before each step

    def configure_optimizers(self) -> list[Optimizer]:
        return self._optimisers

    def training_step(self, batch: Batch, index: int) -> dict[str, Tensor]:
        losses = self._step(self.net, batch, self.progress)
        self.manual_backward(losses["loss"])
        self.update(self.net, self.optimizers())
        return {k: v.detach() for k, v in losses.items()}

    def validation_step(self, batch: Batch, index: int) -> dict[str, Tensor]:
        return self._step(self.net, batch, self.progress)

    def update(self, net: nn.Module, optimisers: Any) -> None:
        """Clip the gradients of `net` to norm `clip`, step, and clear."""
        nn.utils.clip_grad_norm_([p for p in net.parameters() if p.grad is not None], self.clip)
        for optimiser in optimisers if isinstance(optimisers, list) else [optimisers]:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)


@dataclass(frozen=True)
class Fit:
    """How long and how: `warmup` and `steps` in steps, `end` the final learning-rate factor, EMA with the ramp
    (1+s)/(10+s) up to `ema`; `precision` as Lightning's ("32-true", "bf16-mixed"), or "auto": `models.core.device`;
    `portable` wins over it."""

    steps: int
    warmup: int
    end: float = 0.05
    ema: float = 0.999
    precision: str = "auto"
    log_every: int = 20
    val_every: int = 0  # 0: only after the last step
    unit: str = field(default="images", repr=False)
    accelerate: Accelerate = ALONE

    @staticmethod
    def of(p: Learning, **more: Any) -> Fit:
        return Fit(p.steps, p.warmup, ema=p.ema, precision=p.precision, **more)


def fit(task: Task, batches: Batches, plan: Fit, run: Run, validation: list[Batch] | None = None) -> list[dict]:
    """Train `task.net`; afterwards it holds the averaged (EMA) weights. Returns the curve rows.

    Rows are {"step": s, "train_loss": ..., "val_loss": ...}: means over `log_every` steps. Progress, throughput and
    the rows go to `run` (console and tracking). A checkpoint is left at run.checkpoint from time to time, and removed
    when the stage is done; when one is there, training goes on from it. Told to end by SIGTERM, it leaves one first.
    Where several processes train together (`plan.accelerate`), only that of rank 0 comes back from here.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # no lines about absent TPUs
    recorder = Recorder(run, plan.log_every, batches.batch, plan.unit)
    checkpoints = Checkpoints(run.checkpoint) if run.checkpoint else None
    resume = Resume(checkpoints)
    state = resume.start()
    batches.start, batches.share = resume.step, plan.accelerate.share(batches.batch)
    callbacks = [
        Rank(batches),
        resume,
        Schedule(plan.steps, plan.warmup, plan.end, batches.seed),
        Ema(plan.ema),
        recorder,
        Progress(run, plan.steps, batches.batch, plan.unit),
    ]
    trainer = _trainer(
        **plan.accelerate.trainer(),
        precision=_precision(plan, run),
        max_epochs=1,
        limit_train_batches=plan.steps,
        val_check_interval=plan.val_every or plan.steps,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        plugins=[SafetensorsIO(state)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    loader: Any = DataLoader(validation, batch_size=None) if validation else None  # type: ignore[arg-type]
    with warnings.catch_warnings():
        # `Batches` is resumable by its own means; training without validation is meant
        warnings.filterwarnings("ignore", message=".*(dataloader is not resumable|no `val_dataloader`|LeafSpec).*")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        try:
            trainer.fit(task, batches, loader, ckpt_path="checkpoint" if state else None)
        except SIGTERMException:  # of itself it would end the process as if all were well
            raise SystemExit(128 + signal.SIGTERM) from None
        except SystemExit:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from None
    others = ranks.rank() > 0
    ranks.leave()
    if others:
        raise partitions.Done
    task.to(device.best())  # Lightning leaves it on the CPU
    if checkpoints:
        run.when_done.append(checkpoints.forget)
    return recorder.rows


def _precision(plan: Fit, run: Run) -> Any:
    """Lightning's name for it."""
    name = "32-true" if portable.active() else device.precision(plan.precision)
    if name != plan.precision:
        run.say(f"precision {name}")
    elif name == "bf16-mixed" and not device.multiplies_bfloat16(device.best()):
        run.say("precision bf16-mixed: this processor only emulates it, many times slower than precision auto")
    return name


def _trainer(**arguments: Any) -> Trainer:
    try:
        return Trainer(accelerator=device.best().type, **arguments)
    except MisconfigurationException as error:  # more devices than the machine has
        raise UserError(f"accelerate: {' '.join(str(error).split())}") from None


def step_seed(seed: int, step: int) -> int:
    """One 63-bit seed for (seed, step)."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0]) >> 1
