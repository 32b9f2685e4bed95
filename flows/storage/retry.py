"""The one retry policy: a store or server that does not answer is called again, later each time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from data.core.params import UserError
from flows.storage.protocol import Denied, NotThere, Taken
from flows.storage.transfer import WrongContent

SECONDS = 300.0  # that a store may be away: a server's restart, a network that is changed
FIRST, LONGEST = 0.5, 20.0  # seconds between calls
T = TypeVar("T")


def retry(call: Callable[..., T], *arguments: Any, seconds: float = SECONDS, stop: threading.Event | None = None) -> T:
    """What `call(*arguments)` returns; a UserError is believed only after `seconds` of trying, or when `stop` is set.

    Taken, NotThere, Denied and WrongContent are answers. Waits grow, and are random so that those who wait do not
    come back all at once.
    """
    until, wait = time.monotonic() + seconds, FIRST
    while True:
        try:
            return call(*arguments)
        except (Taken, NotThere, Denied, WrongContent):
            raise
        except UserError:
            left = until - time.monotonic()
            if left <= 0 or (stop is not None and stop.is_set()):
                raise
            (stop or threading.Event()).wait(min(left, random.uniform(wait / 2, wait)))
            wait = min(LONGEST, wait * 2)
