"""Space on a worker's disk for its stage: a cache gives way to it, because what it holds can be had again."""

from __future__ import annotations

import errno
import math
import os
import shutil
import threading
from contextlib import suppress

from data.core.params import UserError
from flows.pipeline import workspace
from flows.remote import evict, exchange
from flows.remote.evict import Evicted
from flows.remote.exchange import Exchange
from flows.settings import Settings

SPARE = 2 << 30  # bytes on the disk that only the stage itself may use
FULL = 16 << 20  # bytes left on a disk that counts as full
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
WORDS = (*map(os.strerror, NO_SPACE), "database or disk is full")  # as the system says it, and SQLite


def spare(place: Exchange, stop: threading.Event) -> Evicted:
    """Leave the stage its space, as far as others' inputs and old outputs can make it."""
    if place.free() >= SPARE:
        return Evicted()
    return evict.evict(place, lambda held: SPARE - place.free(), stop)


def is_full(settings: Settings, error: BaseException | None, log: str) -> bool:
    """Whether there is no space, or was none when a stage failed: the causes of its error, or its log, say so."""
    if any(words in log for words in WORDS):
        return True
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    places = [path for path in (workspace.cache(settings), settings.home) if path.exists()]
    return min(shutil.disk_usage(path).free for path in places) < FULL


def make(settings: Settings, stop: threading.Event) -> tuple[Evicted, bool]:
    """On a full disk, free all of the cache that can be had again; and whether a stage may fit now that did not."""
    evicted = Evicted()
    with suppress(UserError, OSError):
        place = exchange.open(settings, workspace.cache(settings))
        before = place.free()
        if before < SPARE or place.cache.stat().st_dev == settings.home.stat().st_dev:  # else another disk is full
            evicted = evict.evict(place, lambda held: math.inf, stop, wait=True)
            freed = max(evicted.bytes, place.free() - before)  # another worker may have done it
            return evicted, freed >= FULL and not stop.is_set()
    return evicted, False
