"""Put a finished folder in the place of another: in one step where the system has it, recoverably elsewhere."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

from data.core.files import sync

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux's fcntl.h and fs.h
NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


def install(fresh: Path, folder: Path) -> None:
    """Give the folder `fresh` the name `folder`, beside it; what stood there is removed.

    Whoever looks at `folder` sees the old content or the new. Where a file system cannot exchange two names, there
    is an instant without either; `recover` mends a kill in it.
    """
    if not folder.exists() or not any(folder.iterdir()):
        fresh.rename(folder)
        sync(folder.parent)
    elif exchange(fresh, folder):
        sync(folder.parent)
        shutil.rmtree(fresh)  # now the old one
    else:
        folder.rename(_aside(folder))
        fresh.rename(folder)
        sync(folder.parent)
        shutil.rmtree(_aside(folder))


def recover(folder: Path) -> None:
    """Finish or take back what a kill interrupted in `install`."""
    aside = _aside(folder)
    if not aside.exists():
        return
    if folder.exists():
        shutil.rmtree(aside)
    else:
        aside.rename(folder)


def exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically; False where the system or the file system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(other))


def _aside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.replaced-by-remint")
