"""Outputs between this machine's DVC cache and DVC's remote: nothing moves twice, everything is verified.

    place = exchange.open(settings, cache)
    place.fetch(["0123....dir", ...], stop)     # folders with all their files
    with place.fetched([...], stop):            # and they stay in the cache until they are linked
        ...
    place.push([...], stop)

Several workers and clones of a machine may have one cache (REMINT_CACHE). Whoever wants an object first holds a lock
on it while it is brought, the others wait and find it. An object that is not whole yet lies beside the cache under
another name; what a killed worker left there, the next one goes on with. `flows.remote.evict` removes what was not
used for long: an object's access time says when it was.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from data.core.params import UserError
from flows.remote import objects
from flows.remote.objects import Objects
from flows.remote.patience import SECONDS, patiently
from flows.settings import Settings
from flows.stage.process import Stopped
from flows.storage.transfer import WrongContent

THREADS = 8  # objects that move at once
SCRATCH = "remint"  # in the cache's folder: locks, and objects that are not whole yet
IN_USE = "in-use"  # lock: shared by who relies on what the cache holds, alone for who removes from it
T = TypeVar("T")


@dataclass
class Moved:
    """What one call moved."""

    bytes: int = 0
    objects: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def count(self, number: int) -> None:
        with self._lock:
            self.bytes += number

    def note(self, oid: str) -> None:
        with self._lock:
            self.objects.append(oid)


class Exchange:
    """One cache and one remote."""

    def __init__(self, cache: Path, remote: Objects) -> None:
        self.cache, self.remote = cache, remote
        self.scratch = cache / SCRATCH
        self.patience = SECONDS

    def path(self, oid: str) -> Path:
        """Where the cache keeps an object."""
        return self.cache / objects.key(oid)

    def free(self) -> int:
        """Bytes left on the cache's disk."""
        self.cache.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.cache).free

    def members(self, oid: str) -> list[str]:
        """The files of an output folder that the cache knows; [] for a file."""
        if not oid.endswith(".dir"):
            return []
        return sorted({entry["md5"] for entry in json.loads(self.path(oid).read_text())})

    def fetch(self, oids: Iterable[str], stop: threading.Event | None = None) -> Moved:
        """Bring what the cache lacks, folders with all their files; NotThere names what the remote lacks too.

        On a full disk everything that this call brought is removed again.
        """
        wanted, moved = sorted(set(oids)), Moved()
        folders = [oid for oid in wanted if oid.endswith(".dir")]
        try:
            with self.in_use(stop):  # the lists are read
                self._each(lambda oid: self._bring(oid, moved, stop), folders)
                files = {*wanted, *self._all_members(folders)} - {*folders}
            self._each(lambda oid: self._bring(oid, moved, stop), sorted(files))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                self.drop(moved.objects)
            raise
        return moved

    @contextmanager
    def fetched(self, oids: Iterable[str], stop: threading.Event | None = None) -> Iterator[Moved]:
        """Have these in the cache as `fetch` does, until the end of the block."""
        wanted = sorted(set(oids))
        moved = self.fetch(wanted, stop)  # may take long, and others may evict meanwhile
        with self.in_use(stop):
            again = self.fetch(wanted, stop)  # what they evicted of these
            yield Moved(moved.bytes + again.bytes, moved.objects + again.objects)

    @contextmanager
    def in_use(self, stop: threading.Event | None = None) -> Iterator[None]:
        """Nothing is removed from the cache meanwhile; for short moments, as others may want to."""
        with self.locked(IN_USE, stop=stop, shared=True):
            yield

    def push(self, oids: Iterable[str], stop: threading.Event | None = None) -> Moved:
        """Store what the remote lacks; a folder's list comes after its files, so it is there only with all of them."""
        moved, lacking = Moved(), sorted(self.missing(oids, stop))
        self._each(lambda oid: self._send(oid, moved, stop), self._all_members(lacking))
        self._each(lambda oid: self._send(oid, moved, stop), lacking)
        return moved

    def missing(self, oids: Iterable[str], stop: threading.Event | None = None) -> set[str]:
        """Which of these the remote does not have."""
        return {oid for oid in set(oids) if self._patiently(partial(self.remote.size, oid), stop) is None}

    def clean(self) -> None:
        """Remove what killed workers left half done, unless a living one works on it."""
        for path in sorted(self.scratch.glob("*.partial")) if self.scratch.is_dir() else ():
            with self.locked(path.name[:2], 0) as mine:
                if mine:
                    path.unlink(missing_ok=True)

    def _all_members(self, oids: Iterable[str]) -> list[str]:
        return sorted({member for oid in oids for member in self.members(oid)})

    def _each(self, work: Callable[[str], None], oids: list[str]) -> None:
        """Do it for each object, several at once; the first error ends it."""
        with ThreadPoolExecutor(THREADS, thread_name_prefix="exchange") as pool:
            futures = [pool.submit(work, oid) for oid in oids]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _bring(self, oid: str, moved: Moved, stop: threading.Event | None) -> None:
        target = self.path(oid)
        if target.exists():
            _used_now(target)
            return
        with self.locked(oid[:2], stop=stop):
            if target.exists():  # somebody on this machine has just brought it
                return
            fresh = self.scratch / oid
            get = partial(self.remote.get, oid, fresh, _watch(moved, stop))
            try:
                self._patiently(get, stop)
            except WrongContent:  # changed in the remote, which stays so, or on the way
                self._patiently(get, stop)
            fresh.chmod(0o444)  # as DVC protects what is in its cache
            target.parent.mkdir(parents=True, exist_ok=True)
            fresh.replace(target)
            moved.note(oid)

    def _send(self, oid: str, moved: Moved, stop: threading.Event | None) -> None:
        if self._patiently(lambda: self.remote.size(oid), stop) is None:
            self._patiently(lambda: self.remote.put(oid, self.path(oid), _watch(moved, stop)), stop)
            moved.note(oid)

    def drop(self, oids: Iterable[str]) -> None:
        """Free what was brought, but not what somebody uses or has linked into a worktree meanwhile."""
        self.clean()
        with self.locked(IN_USE, 0) as alone:
            for oid in oids if alone else ():
                path = self.path(oid)
                if path.exists() and path.stat().st_nlink == 1:
                    path.unlink()

    def _patiently(self, action: Callable[[], T], stop: threading.Event | None) -> T:
        """Do it, and again while the remote fails, for some minutes."""
        try:
            return patiently(action, seconds=self.patience, stop=stop)
        except UserError:
            if stop is not None and stop.is_set():
                raise Stopped from None
            raise

    @contextmanager
    def locked(
        self, name: str, seconds: float = math.inf, stop: threading.Event | None = None, shared: bool = False
    ) -> Iterator[bool]:
        """Hold a lock of all processes of the machine; yields whether it was to be had within so many seconds.

        Objects have a lock for each beginning of two letters. Its file stays for good: to remove it while others
        wait for the lock would let two of them in.
        """
        self.scratch.mkdir(parents=True, exist_ok=True)
        how, until = fcntl.LOCK_SH if shared else fcntl.LOCK_EX, time.monotonic() + seconds
        with (self.scratch / f"{name}.lock").open("a") as file:
            while not (held := _lock(file.fileno(), how)) and time.monotonic() < until:
                if (stop or threading.Event()).wait(0.05):
                    raise Stopped
            yield held


def open(settings: Settings, cache: Path) -> Exchange:
    """The exchange with REMINT_REMOTE; `cache` is the folder that DVC calls its cache."""
    return Exchange(cache, objects.open(settings))


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _used_now(path: Path) -> None:
    """Note it as an object's access time; the time of its last change stays, by which DVC knows files it has hashed."""
    with suppress(OSError):  # another user's object, or evicted at this moment
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def _watch(moved: Moved, stop: threading.Event | None) -> Callable[[int], None]:
    """Counts what moves, and stops it when it is to stop."""

    def watch(count: int) -> None:
        if stop is not None and stop.is_set():
            raise Stopped
        moved.count(count)

    return watch
