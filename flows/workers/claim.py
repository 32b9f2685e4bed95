"""Of several who want the same run at once, one runs it: two triggers for one commit give one run.

    with claim.held(job, say) as claimed: ...

A run is an order of its own (`flows.workers.orders`), whose newest open attempt belongs to the process that made it;
every two seconds that replaces `beat.json` beside it. The key is of the commit, its parameters and its data. Whoever
comes second says so and leaves, or takes over from one that is dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from data.core.params import UserError
from flows.pipeline import workspace
from flows.pipeline.job import Job
from flows.storage.protocol import NotThere
from flows.storage.retry import retry
from flows.workers import orders, pools
from flows.workers.orders import Attempt, Ended, Order, Orders

BEAT_SECONDS = 2.0
SILENT_SECONDS = 30.0  # without a sign of life after which a run of another machine is dead


class UnderWay(Exception):
    """Somebody else runs this already."""

    def __init__(self, run: str, host: str) -> None:
        super().__init__(f"run {run} of the same commit, parameters and data is under way on {host}")
        self.run, self.host = run, host


@dataclass(frozen=True)
class Claim:
    """The right to run a job, as long as nobody took it over."""

    orders: Orders
    mine: Attempt
    dead: tuple[str, ...]  # ids of runs that held it before and were killed

    def check(self) -> None:
        """UserError if somebody took over: this process was suspended or cut off for too long."""
        if not retry(self.orders.is_open, self.mine):
            raise UserError(
                f"run {self.mine.order.run} gave no sign of life for too long, and another took it over; see "
                "remint status"
            )


@contextlib.contextmanager
def held(job: Job, say: Callable[[str], None]) -> Iterator[Claim]:
    """Hold the claim to a job; UnderWay if somebody else lives who does."""
    claim, ended = take(job, say), threading.Event()
    beating = threading.Thread(target=_beat, args=(claim, ended), daemon=True, name="claim")
    beating.start()
    try:
        yield claim
    finally:
        ended.set()
        beating.join()
        with contextlib.suppress(UserError):
            if claim.orders.is_open(claim.mine):
                claim.orders.forget(claim.mine.order)


def clear(job: Job, say: Callable[[str], None]) -> list[str]:
    """Forget the claim of a run that did all its work and was killed before it could say so; returns its id."""
    book, order = orders.opened(job.settings), _order(job)
    there = book.attempts(order)
    if not there or (book.is_open(there[-1]) and _lives(job, book, there[-1], say)):
        return []
    book.forget(order)
    return [attempt.order.run for attempt in there]


def take(job: Job, say: Callable[[str], None]) -> Claim:
    """Have the claim, for as long as somebody gives signs of life for it; UnderWay."""
    book, order = orders.opened(job.settings), _order(job)
    while True:
        there = book.attempts(order)
        last = there[-1] if there else None
        if last is not None and book.is_open(last):
            if _lives(job, book, last, say):
                raise UnderWay(last.order.run, last.order.host)
            if book.close(last, Ended("lost", why="no sign of life")):
                say(f"run {last.order.run} on {last.order.host} is dead: taking over")
        made = book.open(order, last.number + 1 if last else 1)
        if made.order is order:  # and nobody was quicker
            return Claim(book, made, tuple(attempt.order.run for attempt in there))


def _lives(job: Job, book: Orders, held: Attempt, say: Callable[[str], None]) -> bool:
    """Whether who holds the claim gives a sign of life; for one of this machine the system knows at once."""
    run, host = held.order.run, held.order.host
    if (host, held.order.home) == (socket.gethostname(), str(job.settings.home)):
        return run in workspace.living(job.settings) - {job.run.id}
    say(f"run {run} holds this work on {host}: waiting for a sign of life")
    first, until = _last_beat(book, held), time.monotonic() + SILENT_SECONDS
    while time.monotonic() < until:
        time.sleep(BEAT_SECONDS / 4)
        if not book.is_open(held):
            return False
        if _last_beat(book, held) != first:
            return True
    return False


def _beat(claim: Claim, ended: threading.Event) -> None:
    count = 0
    while True:
        count += 1
        with contextlib.suppress(UserError):  # the bucket is away: the next one may be heard
            claim.orders.store.replace(f"{claim.mine.place}/beat.json", b"%d" % count)
        if ended.wait(BEAT_SECONDS):
            return


def _last_beat(book: Orders, held: Attempt) -> bytes:
    try:
        return book.store.read(f"{held.place}/beat.json")
    except NotThere:
        return b""


def _order(job: Job) -> Order:
    """The run as an order. Two are the same by commit, parameters, and what the first stages read; a reproduction has a
    name."""
    if job.again:
        text = job.again.proof
    else:
        first = [stage for stage in job.stages if not stage.upstream]
        deps = {stage.name: {dep: job.store.content(stage, dep, {}) for dep in stage.deps} for stage in first}
        text = json.dumps([job.run.base_commit, job.run.parameters, deps], sort_keys=True)
    key, host = hashlib.sha256(text.encode()).hexdigest(), socket.gethostname()
    return Order("", key, job.run.commit, {}, job.run.id, pools.FLOWS, host=host, home=str(job.settings.home))
