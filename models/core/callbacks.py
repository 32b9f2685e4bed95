"""Lightning callbacks of `models.core.training.fit`: schedule, averaging, recording, progress."""

from __future__ import annotations

import math
import random
import sys
import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from lightning import Callback
from tqdm import tqdm

from models.core import ranks
from models.core.optim import warmup_cosine
from models.core.stage import Run


class Rank(Callback):
    """Tells the batches which slice of each is this process's."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def setup(self, trainer, task, stage) -> None:
        self.batches.rank = trainer.global_rank


class Schedule(Callback):
    """Before each step: learning rates, the task's progress, and the seed of everything random in the step."""

    def __init__(self, steps: int, warmup: int, end: float, seed: int) -> None:
        self.steps, self.warmup, self.end, self.seed = steps, warmup, end, seed

    def on_train_start(self, trainer, task) -> None:
        for optimiser in trainer.optimizers:
            for group in optimiser.param_groups:
                group.setdefault("initial_lr", group["lr"])

    def on_train_batch_start(self, trainer, task, batch, step) -> None:
        factor = warmup_cosine(step, self.warmup, self.steps, self.end)
        for optimiser in trainer.optimizers:
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * factor
        task.progress = step / self.steps
        drawn = int(np.random.SeedSequence([self.seed, step, 1]).generate_state(1, np.uint64)[0]) >> 1
        torch.manual_seed(drawn + trainer.global_rank)  # of every device; ranks drop out other things
        random.seed(drawn)
        np.random.seed(drawn % 2**32)


class Ema(Callback):
    """Exponential moving average of the net's floating-point state, used for validation and kept at the end.

    The decay ramps up as (1 + s) / (10 + s) so that the average forgets the initial weights.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, torch.Tensor] = {}
        self.kept: dict[str, torch.Tensor] = {}

    @staticmethod
    def tensors(task) -> dict[str, torch.Tensor]:
        return {k: v for k, v in task.net.state_dict(keep_vars=False).items() if v.is_floating_point()}

    def on_train_start(self, trainer, task) -> None:
        live = self.tensors(task)
        if not self.average:
            self.average = {k: v.clone() for k, v in live.items()}
        self.average = {k: ranks.like(self.average[k], v) for k, v in live.items()}  # a checkpoint's are on the CPU

    def on_train_batch_end(self, trainer, task, outputs, batch, step) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        live = self.tensors(task)
        average = [ranks.share(self.average[k]) for k in live]
        torch._foreach_lerp_(average, [ranks.share(v) for v in live.values()], 1 - decay)

    def on_validation_start(self, trainer, task) -> None:
        self.kept = {k: v.clone() for k, v in self.tensors(task).items()}
        self._put(task, self.average)

    def on_validation_end(self, trainer, task) -> None:
        self._put(task, self.kept)
        self.kept = {}

    def on_train_end(self, trainer, task) -> None:
        if not trainer.interrupted:
            self._put(task, self.average)

    def state_dict(self) -> dict:
        return {"average": self.average}

    def load_state_dict(self, state: dict) -> None:
        self.average = state["average"]

    @staticmethod
    def _put(task, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in Ema.tensors(task).items():
                tensor.copy_(values[name])


class Recorder(Callback):
    """Collects losses; every `every` steps their means become a row of the curves and go to the tracking."""

    def __init__(self, run: Run, every: int, batch: int, unit: str) -> None:
        self.run, self.every, self.batch, self.unit = run, every, batch, unit
        self.rows: list[dict] = []
        self.pending: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.validation: dict[str, list[torch.Tensor]] = defaultdict(list)
        self.since = 0.0

    def on_train_start(self, trainer, task) -> None:
        self.pending = defaultdict(list, {k: [x.to(task.device) for x in v] for k, v in self.pending.items()})
        self.since = time.monotonic()

    def on_train_batch_end(self, trainer, task, outputs, batch, step) -> None:
        for name, value in ranks.means(outputs).items():
            self.pending[name].append(value)
        if (step + 1) % self.every == 0:
            row = {f"train_{k}": float(torch.stack(v).float().mean()) for k, v in self.pending.items()}
            self.pending.clear()
            if not math.isfinite(row["train_loss"]):
                raise FloatingPointError(f"the training loss became {row['train_loss']} at step {step + 1}")
            self._add(step + 1, row)
            now = time.monotonic()
            speed = self.every * self.batch / max(1e-9, now - self.since)
            self.run.tracker.metrics({**row, f"{self.unit}_per_second": speed}, step + 1)
            self.since = now

    def on_validation_batch_end(self, trainer, task, outputs, batch, index, loader=0) -> None:
        for name, value in outputs.items():
            self.validation[name].append(value)

    def on_validation_end(self, trainer, task) -> None:
        row = {f"val_{k}": float(torch.stack(v).float().mean()) for k, v in self.validation.items()}
        self.validation.clear()
        step = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self._add(step, row)
        self.run.tracker.metrics(row, step)
        self.since = time.monotonic()

    def _add(self, step: int, row: dict) -> None:
        if self.rows and self.rows[-1]["step"] == step:
            self.rows[-1].update(row)
        else:
            self.rows.append({"step": step, **row})

    def state_dict(self) -> dict:
        return {"rows": self.rows, "pending": dict(self.pending)}

    def load_state_dict(self, state: dict) -> None:
        self.rows = state["rows"]
        self.pending = defaultdict(list, state["pending"])


class Progress(Callback):
    """A bar on a terminal; elsewhere (a log, the flow) one plain line every few seconds."""

    def __init__(self, run: Run, steps: int, batch: int, unit: str, seconds: float = 5.0) -> None:
        self.run, self.steps, self.batch, self.unit, self.seconds = run, steps, batch, unit, seconds
        self.bar: tqdm | None = None
        self.began = self.last = 0.0
        self.first = 0

    def on_train_start(self, trainer, task) -> None:
        self.began = self.last = time.monotonic()
        self.first = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if sys.stderr.isatty() and not self.run.silent:
            self.bar = tqdm(total=self.steps, initial=self.first, desc=self.run.stage, unit="step")

    def on_train_batch_end(self, trainer, task, outputs, batch, step) -> None:
        if self.bar is not None:
            self.bar.update(1)
        now = time.monotonic()
        if now - self.last < self.seconds and step + 1 < self.steps:
            return
        self.last = now
        done = step + 1 - self.first
        rate = done / max(1e-9, now - self.began)
        loss = float(outputs["loss"])
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}, {rate * self.batch:.0f} {self.unit}/s")
            return
        left = (self.steps - step - 1) / max(1e-9, rate)
        self.run.say(
            f"step {step + 1}/{self.steps} ({100 * (step + 1) // self.steps} %)  loss {loss:.4f}  "
            f"{rate * self.batch:.0f} {self.unit}/s  {left:.0f} s left"
        )

    def on_train_end(self, trainer, task) -> None:
        if self.bar is not None:
            self.bar.close()
