"""The checkpoints of one training: save, find the newest good one, forget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.core.checkpoint_store import CheckpointStore
from models.core.checkpoint import files

KEPT = 2  # the newest, and the one before it in case the newest is damaged


class Checkpoints:
    """The states STEP-SHA256.safetensors in a folder or under s3://bucket/prefix."""

    def __init__(self, address: str) -> None:
        self.checkpoints = CheckpointStore(address, "safetensors")
        self.store = self.checkpoints.store

    def save(self, step: int, write: Callable[[Path], object]) -> None:
        """Keep what `write` writes to the file it is given as the state after `step` steps."""
        self.checkpoints.put(step, write)
        with self.checkpoints.tolerant("cannot be removed"):
            for name in list(self.checkpoints.files().values())[:-KEPT]:
                self.store.delete(name)

    def newest(self) -> tuple[int, dict[str, Any]] | None:
        """(step, state) of the newest checkpoint that is what its name says."""
        with self.checkpoints.tolerant("cannot be read"), self.store.scratch() as folder:
            for step, name in reversed(self.checkpoints.files().items()):
                if file := self.checkpoints.get(name, folder):
                    return step, files.read(file)
        return None

    def forget(self) -> None:
        """The training is done: its checkpoints have no further use."""
        self.checkpoints.forget()
