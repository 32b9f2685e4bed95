"""Orders and claims that nobody waits for: of runs that were killed and never started again.

A run gives signs of life every few seconds in its claim. An order may wait for a worker or be worked on for long; if it
goes meanwhile, its stage is in the run cache when it is done, and its run finds it there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from data.core import stores
from data.core.params import UserError
from flows.garbage.place import Garbage, InTheWay, Place
from flows.workers import orders

KIND = "attempt"
LEAST_SECONDS = 86400.0  # clocks of other machines may be wrong by hours
WORK = re.compile(r"((?:stages/[^/]+|runs)/[0-9a-f]{64}/[^/]+)/\d{4,}/[a-z]+\.json")
WHY = "no run waits for it, and nobody has worked on it for a day"


@contextmanager
def guard(place: Place) -> Iterator[None]:
    yield  # a run of this machine may work: its attempts are younger


def find(place: Place) -> Iterator[Garbage]:
    works: dict[str, list[stores.Stored]] = {}
    try:
        address = orders.opened(place.settings).store.name
        for stored in stores.open(address, "REMINT_LEDGER").list():
            if match := WORK.fullmatch(stored.name):
                works.setdefault(match[1], []).append(stored)
    except (UserError, OSError) as error:
        raise InTheWay(f"REMINT_LEDGER cannot be asked ({type(error.__cause__ or error).__name__})") from None
    for work, files in works.items():
        if time.time() - max(file.modified for file in files) >= max(place.grace, LEAST_SECONDS):
            yield Garbage(KIND, f"{address}/{work}", sum(file.size for file in files), WHY)


def delete(place: Place, item: Garbage) -> None:
    store = orders.opened(place.settings).store
    for key in store.list(f"{item.what.removeprefix(store.name).strip('/')}/"):
        store.delete(key)  # in their order: first what makes an attempt known
