"""Checkpoints in Lightning's terms: when to save, how a state becomes a file, where a resumed training starts."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lightning import Callback
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from models.checkpoint import files
from models.checkpoint.checkpoints import Checkpoints


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

    def start(self) -> dict[str, Any] | None:
        """The state to go on from, after `self.step` steps."""
        found = self.checkpoints.newest() if self.checkpoints else None
        if found is None:
            return None
        self.step, state = found
        sys.stderr.write(f"going on from step {self.step}\n")
        return state

    def on_train_batch_start(self, trainer, task, batch, step) -> None:
        # between two steps: at the end of a batch Lightning has not yet counted it as completed
        if step > self.step and self._due(step):
            self.save(trainer, step)

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
        self.checkpoints.save(step, trainer.save_checkpoint)
        self.step, self.saved = step, time.monotonic()
        self.cost = self.saved - began

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
