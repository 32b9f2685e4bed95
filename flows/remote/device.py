"""Which GPUs this machine has, and who works on them: a lock per device, dropped by the system when its holder dies.

    wanted = device.chosen("0,1", "gpu")         # UserError: there is no GPU 1
    with device.held(wanted, stop) as variables:  # waits while another worker's stage has one of them
        ... variables["CUDA_VISIBLE_DEVICES"]

The locks lie in the machine's temporary folder, because workers of several clones and homes share its devices.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.core.params import UserError
from flows.stage.process import Stopped

FOLDER = Path(tempfile.gettempdir()) / "remint-devices"
ASK_SECONDS = 60  # importing torch takes 2 s, on a busy machine many times that
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Devices:
    """What a worker gives its stages: GPUs by their numbers on this machine, or the processor alone."""

    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"cuda:{','.join(self.gpus)}" if self.gpus else "cpu"


def chosen(names: str, pool: str, found: tuple[str, ...] | None = None) -> Devices:
    """The devices for a worker of a pool: "cpu", "0,1", or "" for every GPU if it is the pool gpu.

    UserError where a GPU is wanted and there is none. `found` stands for what `gpus` would say.
    """
    if names == "cpu" or (not names and pool != "gpu"):
        return Devices()
    there = gpus() if found is None else found
    if not there:
        raise UserError(
            f"no GPU for pool {pool} on this machine: its torch sees none (nvidia-smi shows the driver; "
            "torch's CPU build sees none ever); `--devices cpu` serves the pool with the processor"
        )
    wanted = tuple(dict.fromkeys(re.split(r"[,\s]+", names.strip(", ")))) if names else there
    for name in wanted:
        if name not in there:
            raise UserError(f"--devices {names}: there is no GPU '{name}' on this machine; GPUs: {', '.join(there)}")
    return Devices(wanted)


def gpus() -> tuple[str, ...]:
    """The GPUs that torch can use, by their numbers on this machine; () without one, or without a driver."""
    code = "import torch; print(torch.cuda.device_count())"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
            cwd=tempfile.gettempdir(),
        )
        count = int(done.stdout.split()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return ()
    named = [name for name in os.environ.get(VISIBLE, "").split(",") if name]
    return tuple(named[:count] if named else map(str, range(count)))


@contextmanager
def held(devices: Devices, stop: threading.Event, say: Callable[[str], object] = str) -> Iterator[Mapping[str, str]]:
    """Hold every device while a stage works; yields the variables that show it these devices and no others.

    Waits for a device that another worker's stage has, and says so; Stopped if `stop` is set meanwhile.
    """
    with ExitStack() as stack:
        for name in sorted(devices.gpus):  # in one order everywhere: two that want two cannot block each other
            stack.enter_context(_locked(name, stop, say))
        # "-1" and not "": an empty value means every device to some libraries
        yield {VISIBLE: ",".join(devices.gpus) or "-1"}


@contextmanager
def _locked(name: str, stop: threading.Event, say: Callable[[str], object]) -> Iterator[None]:
    FOLDER.mkdir(mode=0o1777, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # made by another user
        FOLDER.chmod(0o1777)
    path = FOLDER / f"gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        waited = False
        while not _lock(descriptor):
            if not waited:
                say(f"waiting for GPU {name}, which another worker's stage has")
            waited = True
            if stop.wait(0.1):
                raise Stopped
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
