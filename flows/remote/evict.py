"""The least recently used objects of a machine's cache go when it is larger than it may be, or its disk is full.

    evict.tidy(settings, worker, stop)               # down to REMINT_CACHE_GB, when a stage has ended
    evict.evict(place, lambda held: math.inf, stop)  # all that can be had again

Only what the remote keeps goes, which is what `Exchange.fetch` brings again: an output that a run on this machine made
and nobody pushed stays. So does what a worktree has linked, what was used since it was looked at, what somebody brings
at the moment, and everything in the short moments in which somebody relies on the cache (`Exchange.in_use`).
A folder's list of files goes before the first of its files, so that a list which is there is not a promise broken.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from data.core.params import UserError
from flows.console import say
from flows.pipeline import workspace
from flows.remote import exchange, objects
from flows.remote.exchange import IN_USE, THREADS, Exchange
from flows.settings import Settings
from flows.show.lineage import words
from flows.stage.process import Stopped

LOCK = "evict"  # of the one who evicts
GB = 10**9
PORTION = 64  # objects that the remote is asked about before some of them go
MOMENT = 60.0  # seconds that somebody may rely on the cache before this is left to the next time


@dataclass(frozen=True)
class Item:
    """An object of the cache."""

    oid: str
    file: os.stat_result

    @property
    def used(self) -> int:
        """When it was fetched, found by a fetch, read or made; in nanoseconds."""
        return self.file.st_atime_ns

    @property
    def linked(self) -> bool:
        return self.file.st_nlink > 1


@dataclass
class Evicted:
    """What went, and why there is not more of it."""

    objects: int = 0
    bytes: int = 0
    why: str = ""

    def __str__(self) -> str:
        """One line, "" where nothing was to be done."""
        freed = f"{words.size(self.bytes)} of the cache freed: {self.objects} objects not used for longest"
        if self.objects:
            return f"{freed}; {self.why}" if self.why else freed
        return f"nothing of the cache could be freed: {self.why}" if self.why else ""


def tidy(settings: Settings, worker: str, stop: threading.Event) -> None:
    """Bring the machine's cache below REMINT_CACHE_GB, where that is set, and say what it freed."""
    if settings.cache_gb is None:
        return
    bound = settings.cache_gb * GB
    with suppress(UserError, OSError):
        place = exchange.open(settings, workspace.cache(settings))
        if line := str(evict(place, lambda held: held - bound, stop)):
            say(f"worker {worker}: {line}")


def evict(
    place: Exchange, excess: Callable[[int], float], stop: threading.Event | None = None, wait: bool = False
) -> Evicted:
    """Remove the least recently used objects, `excess(bytes of the cache)` of them or what can be had again.

    Nothing is removed while another process of the machine does the same; `wait` until it has done it, then go on.
    It ends early when `stop` is set or the remote does not answer.
    """
    done = Evicted()
    with suppress(Stopped), place.locked(LOCK, math.inf if wait else 0, stop) as mine:
        if mine:
            found = survey(place)
            wanted = excess(sum(item.file.st_size for item in found))
            if wanted > 0:
                _evict(place, found, wanted, done, stop or threading.Event())
    return done


def survey(place: Exchange) -> list[Item]:
    """Every object of the cache, as it is now."""
    found = []
    for folder in sorted(place.path("0" * 32).parents[1].glob("??")):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
            for entry in entries:
                oid = folder.name + entry.name
                with suppress(FileNotFoundError):
                    if objects.OID.fullmatch(oid) and entry.is_file(follow_symlinks=False):
                        found.append(Item(oid, entry.stat(follow_symlinks=False)))
    return found


def _evict(place: Exchange, found: list[Item], wanted: float, done: Evicted, stop: threading.Event) -> None:
    lists = _lists(place, found)
    order = _in_order(found, lists)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="evict") as pool:
        while order and done.bytes < wanted and not stop.is_set():
            portion, order = order[:PORTION], order[PORTION:]
            try:
                answers = list(pool.map(lambda item: place.remote.keeps(item.oid, item.file), portion))
            except UserError as error:
                done.why = str(error)
                return
            with place.locked(IN_USE, MOMENT, stop) as alone:
                if not alone:
                    done.why = "somebody works with it; left to the next time"
                    return
                for item in itertools.compress(portion, answers):
                    promised = any(place.path(above.oid).exists() for above in lists.get(item.oid, ()))
                    if done.bytes < wanted and not promised and _remove(place, item):
                        done.objects, done.bytes = done.objects + 1, done.bytes + item.file.st_size
    if done.bytes < wanted < math.inf and not stop.is_set():
        done.why = f"{words.size(math.ceil(wanted - done.bytes))} too many are in use or not in the remote"


def _lists(place: Exchange, found: list[Item]) -> Mapping[str, list[Item]]:
    """The lists of folders that name an object."""
    naming: dict[str, list[Item]] = defaultdict(list)
    for item in found:
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # a damaged list promises nothing
            for oid in place.members(item.oid):
                naming[oid].append(item)
    return naming


def _in_order(found: list[Item], lists: Mapping[str, list[Item]]) -> list[Item]:
    """The least recently used first, each behind the lists that name it; without what a worktree has linked."""
    order: dict[str, Item] = {}
    for item in sorted(found, key=lambda item: item.used):
        if not item.linked:
            order.update({one.oid: one for one in (*lists.get(item.oid, ()), item) if one.oid not in order})
    return list(order.values())


def _remove(place: Exchange, item: Item) -> bool:
    """Remove an object that nobody has used, linked or locked since it was looked at."""
    path = place.path(item.oid)
    with place.locked(item.oid[:2], 0) as mine, suppress(OSError):  # gone already, or not this user's to remove
        now = path.stat()
        unused = now.st_atime_ns == item.used or item.oid.endswith(".dir")  # these were read here
        if mine and unused and now.st_nlink == 1 and now.st_ino == item.file.st_ino:
            path.unlink()
            return True
    return False
