"""Checkpoints in Lightning's terms: when to save, how a state becomes a file, where a resumed training starts."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning import Callback
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from data.core.params import UserError
from models.core import ranks
from models.core.checkpoint import files
from models.core.checkpoint.checkpoints import Checkpoints


@dataclass(frozen=True)
class Pace:
    """A checkpoint every `steps` or every `seconds`, whichever comes first, while saving takes at most `share` of
    the time."""

    steps: int = 500
    seconds: float = 45.0
    share: float = 0.05


class Resume(Callback):
    """Saves the whole training state from time to time, and when the process is asked to end (SIGTERM)."""

    pace: ClassVar[Pace] = Pace()

    def __init__(self, checkpoints: Checkpoints | None) -> None:
        self.checkpoints, self.step = checkpoints, 0
        self.saved, self.cost = time.monotonic(), 0.0
        self.told = False  # to end

    def start(self) -> dict[str, Any] | None:
        """The state to go on from, after `self.step` steps."""
        found = self.checkpoints.newest() if self.checkpoints else None
        if found is None:
            return None
        self.step, state = found
        sys.stderr.write(f"going on from step {self.step}\n")
        return state

    def on_train_start(self, trainer, task) -> None:
        if trainer.world_size == 1:
            return
        steps = ranks.gather(torch.tensor([self.step], device=task.device)).tolist()
        if len(set(steps)) > 1:
            raise UserError(f"ranks go on from different steps {steps}; let REMINT_CHECKPOINTS name one place for all")
        # Lightning's own handler sends messages between those of the step, wherever that is
        signal.signal(signal.SIGTERM, self._note)

    def on_train_batch_start(self, trainer, task, batch, step) -> None:
        # between two steps: at the end of a batch Lightning has not yet counted it as completed
        due, told = step > self.step and self._due(step), self.told
        if trainer.world_size > 1:  # the clocks of ranks differ; that of the first counts, and whoever is told to end
            own = torch.tensor([due and trainer.is_global_zero, told], dtype=torch.int32, device=task.device)
            due, told = (bool(one) for one in ranks.total(own).tolist())
        if due or (told and step > self.step):
            self.save(trainer, step)
        if told:
            raise SIGTERMException

    def on_exception(self, trainer, task, exception) -> None:
        """Told to end after a step: all of it is done. Within a validation the checkpoint before must do."""
        step = trainer.fit_loop.epoch_loop.batch_progress.current.completed
        whole = not trainer.validating and self.step < step < trainer.num_training_batches
        if isinstance(exception, SIGTERMException) and whole:
            self.save(trainer, step)

    def save(self, trainer, step: int) -> None:
        if self.checkpoints is None:
            return
        began = time.monotonic()
        if trainer.world_size == 1:
            self.checkpoints.save(step, trainer.save_checkpoint)
        else:
            self._save_together(trainer, step)
        self.step, self.saved = step, time.monotonic()
        self.cost = self.saved - began

    def _note(self, number, frame) -> None:
        self.told = True

    def _save_together(self, trainer, step: int) -> None:
        """All ranks take part; a store that fails must not leave them waiting for the first."""
        with tempfile.TemporaryDirectory(prefix="remint-checkpoint-") as folder:
            file = Path(folder) / "state"
            trainer.save_checkpoint(file)
            if trainer.is_global_zero:
                assert self.checkpoints is not None
                self.checkpoints.save(step, lambda target: shutil.copyfile(file, target))

    def _due(self, step: int) -> bool:
        waited = time.monotonic() - self.saved
        wanted = step - self.step >= self.pace.steps or waited >= self.pace.seconds
        return wanted and self.cost <= self.pace.share * waited


class SafetensorsIO(CheckpointIO):
    """Lightning's states as safetensors and JSON instead of pickles; `state` is what a training goes on from."""

    def __init__(self, state: dict[str, Any] | None) -> None:
        self.state = state

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        files.write(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        assert self.state is not None
        state, self.state = self.state, None  # Lightning drops it once it is restored
        return state

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)
