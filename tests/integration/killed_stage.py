"""One stage in this process, as its command runs it, which can be killed at a chosen moment of a chosen step.

Run by `test_resume_stages.py` through `runpy` with `CALL` set, in a process forked from one that has imported the
stages already.
"""

import os
import runpy
import signal
import sys
from pathlib import Path

from data.core import partitions
from models.core import callbacks, training
from models.core.checkpoint import files, resume
from tests import code


def run(
    home: str,
    module: str,
    line: str,
    every: int,
    moment: str = "",
    step: int = 0,
    number: int = signal.SIGKILL,
    environment: dict[str, str] | None = None,
) -> None:
    """Call the stage in `home`, with a checkpoint after `every` steps.

    With a `moment` send itself the signal `number`: "before", "within" or "after" that step, or half way through
    "saving" the next checkpoint; of a data-parallel stage when that "shard" is written but not kept.
    """
    os.chdir(home)
    code.put(Path(home))
    os.environ |= {"REMINT_CHECKPOINTS": str(Path(home, "checkpoints")), "MLFLOW_TRACKING_URI": ""}
    os.environ |= environment or {}
    log = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    resume.Resume.pace = resume.Pace(steps=every, seconds=1e9, share=1e9)
    if moment:
        arm(moment, step, number)
    sys.argv = [module, *line.split()]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def arm(moment: str, step: int, number: int) -> None:
    """Put the signal where it belongs."""
    schedule, progress, now = callbacks.Schedule, callbacks.Progress, [-1]
    begin, update, end, save = (
        schedule.on_train_batch_start,
        training.Task.update,
        progress.on_train_batch_end,
        files.save_file,
    )

    made = partitions.Shards.make

    def make(self, index, write):
        def killed(file):
            write(file)
            if moment == "shard" and index == step:
                os.kill(os.getpid(), number)

        made(self, index, killed)

    def at(*moments: str) -> None:
        if moment in moments and now[0] == step:
            os.kill(os.getpid(), number)

    def before(self, trainer, task, batch, index):
        now[0] = index
        at("before")
        begin(self, trainer, task, batch, index)

    def within(self, net, optimisers):
        at("within")
        update(self, net, optimisers)

    def after(self, *arguments):
        end(self, *arguments)
        at("after")

    def saving(tensors, path, metadata=None):
        save(tensors, path, metadata)
        if moment == "saving" and now[0] + 1 >= step:
            with Path(path).open("r+b") as file:
                file.truncate(Path(path).stat().st_size // 2)
            os.kill(os.getpid(), number)

    schedule.on_train_batch_start, progress.on_train_batch_end = before, after
    training.Task.update, files.save_file, partitions.Shards.make = within, saving, make


if __name__ == "__main__":
    run(*CALL)  # noqa: F821 - set by the caller
