"""A worker's share of the machine's disk: before a stage, the cache gives up what was not used for longest.

Only what the remote keeps goes, and nothing that a worktree has linked: it is fetched again when it is needed. The
bound is REMINT_CACHE_GB, and in any case 2 GB that stay free for the stage.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data.core import locks
from flows.pipeline import workspace
from flows.pipeline.store import Store
from flows.settings import Settings

SPARE = 2 << 30  # bytes on the disk that only the stage itself may use
FULL = 16 << 20  # bytes left on a disk that counts as full
GB = 10**9
WORDS = (*map(os.strerror, (errno.ENOSPC, errno.EDQUOT)), "database or disk is full")  # of the system, and SQLite


@contextmanager
def in_use(settings: Settings, alone: bool = False) -> Iterator[bool]:
    """Nothing is removed from the cache meanwhile; `alone`, to remove from it: yields whether nobody relies on it."""
    folder = workspace.cache(settings) / "remint"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = locks.take(folder / "in-use.lock", wait=not alone, shared=not alone)
    except BlockingIOError:
        yield False
        return
    with lock:
        yield True


def make_room(settings: Settings, store: Store) -> int:
    """Remove least recently used objects until the cache is below its bound; returns the bytes that were freed."""
    folder, freed = workspace.cache(settings), 0
    with in_use(settings, alone=True) as alone:
        found = [(path, path.stat()) for path in (folder / "files" / "md5").glob("??/*")] if alone else []
        held = sum(about.st_size for _, about in found)
        bound = settings.cache_gb * GB if settings.cache_gb is not None else float("inf")
        excess = max(held - bound, SPARE - shutil.disk_usage(folder.parent if not folder.exists() else folder).free)
        for path, about in sorted(found, key=lambda item: (item[1].st_atime_ns, item[0].name)):
            if freed >= excess:
                break
            if about.st_nlink == 1 and store.accepted.holds(path.parent.name + path.name):
                with suppress(OSError):  # another user's
                    path.unlink()
                    freed += about.st_size
    return freed


def is_full(settings: Settings, said: str) -> bool:
    """Whether there is no space, or was none when a stage failed, as its words say."""
    places: list[Path] = [path for path in (workspace.cache(settings), settings.home) if path.exists()]
    return any(words in said for words in WORDS) or min(shutil.disk_usage(path).free for path in places) < FULL
