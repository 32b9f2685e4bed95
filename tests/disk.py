"""A small disk of its own for a test that fills it; only root can mount one."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

needed = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


@contextmanager
def small(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """40 MB for the home and the cache of the machines that are made meanwhile; gives what tells the bytes left."""
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(disk)], check=True)
    try:
        with monkeypatch.context() as mounted:
            mounted.setenv("REMINT_CACHE", str(disk / "cache"))
            mounted.setenv("REMINT_HOME", str(disk / "home"))
            yield lambda: os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    finally:
        subprocess.run(["umount", str(disk)], check=True)
