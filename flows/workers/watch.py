"""The attempts that a run waits for: what came of them, or that no worker works on them any more.

    watches = Watches(orders, silent=120)
    ended = watches.wait([watches.add(attempt, say), ...], stop)    # from many threads at once

Prefect is asked for all of them together, by whichever thread waits just then; the bucket for the outcome of those
which Prefect says are over, and of all while its server is away. Silence is measured in this process's own time, and
only while the server answers: a waiting process that was itself suspended, or a server that is away, loses nobody.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from data.core.params import UserError
from flows.stage.process import Stopped
from flows.stage.spending import Usage
from flows.workers import flowruns, pools
from flows.workers.flowruns import Away, Seen
from flows.workers.orders import Attempt, Ended, Orders

POLL_SECONDS = 1.0  # between two times that a thread asks whether it is its turn to look
LOOK_SECONDS = 2.0  # between two looks at Prefect; a longer time between them counts as this much
LOOK_SHARE = 0.1  # of the time, at most, goes into looking where there is very much to look at
SUBMITTED = 200  # at most, between two looks
AWAY_SECONDS = 600.0  # that a server may be away before it is said that nothing goes on
START_SECONDS = {pools.PROCESS: 120.0}  # that the start of a job may take, by type of pool
SLOW_START_SECONDS = 900.0  # of a pod: its image is large, its machine is yet to come
UNSERVED_SECONDS = 300.0

Say = Callable[[str, bool], None]  # a text, and whether it is to be kept: not the state of something that goes on


@dataclass(eq=False)
class Watch:
    """One attempt that somebody waits for."""

    attempt: Attempt
    say: Say
    ended: Ended | None = None
    error: UserError | None = None  # bucket or Prefect are away for good
    flow_run: UUID | None = None
    seen: Seen | None = None
    quiet: float = 0.0  # seconds since a sign of life, or since the state last changed
    unserved: float = 0.0
    away: float = 0.0
    times: list[float] = field(default_factory=list)  # when it was first seen at work, and when its outcome came

    def usage(self) -> Usage:
        """What the attempt has cost: by the worker's word at its end, before that the time since it began."""
        if self.ended is not None and self.ended.usage.seconds:
            return self.ended.usage
        if not self.times:
            return Usage()
        return Usage(seconds=round((self.times[1] if self.ended else time.monotonic()) - self.times[0], 3))

    @property
    def open(self) -> bool:
        return self.ended is None and self.error is None


class Watches:
    """All open attempts of a run."""

    def __init__(self, orders: Orders, silent: float) -> None:
        self.orders, self.silent = orders, silent  # seconds without a sign of life after which a worker is lost
        self._all: list[Watch] = []
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._pace = LOOK_SECONDS

    def add(self, attempt: Attempt, say: Say) -> Watch:
        """Have an attempt submitted and looked at from now on."""
        watch = Watch(attempt, say)
        self._all.append(watch)
        return watch

    def wait(self, watches: Sequence[Watch], stop: threading.Event) -> list[Ended]:
        """Wait until all of these are at their end; Stopped, or UserError if bucket or Prefect are away for good."""
        try:
            while True:
                self.look()
                for watch in watches:
                    if watch.error is not None:
                        raise watch.error
                ended = [watch.ended for watch in watches if watch.ended is not None]
                if len(ended) == len(watches):
                    return ended
                if stop.wait(POLL_SECONDS):
                    for watch in watches:
                        if watch.open:
                            with contextlib.suppress(UserError):  # then its worker works in vain
                                self._stop(watch, "the run was stopped")
                    raise Stopped
        finally:
            with self._lock:
                gone = set(map(id, watches))
                self._all = [watch for watch in self._all if id(watch) not in gone]

    def look(self) -> None:
        """Look at all open attempts, if it is time to."""
        with self._lock:
            now = time.monotonic()
            passed = 0.0 if self._looked is None else now - self._looked
            if self._looked is not None and passed < self._pace:
                return
            self._looked = now
            self._look([watch for watch in self._all if watch.open], min(passed, 2 * self._pace))
            self._pace = max(LOOK_SECONDS, (time.monotonic() - now) / LOOK_SHARE)

    def _look(self, watches: list[Watch], passed: float) -> None:
        seen: dict[UUID, Seen] = {}
        served: dict[str, pools.Served] = {}
        away: UserError | None = None
        try:
            with flowruns.client() as api:
                deployments: dict[str, UUID] = {}
                for watch in [watch for watch in watches if watch.flow_run is None][:SUBMITTED]:
                    try:
                        watch.flow_run = flowruns.submit(api, watch.attempt, deployments)
                    except Away:
                        raise
                    except UserError as error:
                        watch.error = error
                seen = flowruns.look(api, [watch.flow_run for watch in watches if watch.flow_run is not None])
                waiting = {one for one, state in seen.items() if state.state in (flowruns.WAITING, "PENDING")}
                for pool in {watch.attempt.order.pool for watch in watches if watch.flow_run in waiting}:
                    served[pool] = pools.served(api, pool)
        except UserError as error:
            away = error
        for watch in [watch for watch in watches if watch.open]:
            try:
                self._judge(watch, seen.get(watch.flow_run) if watch.flow_run else None, served, away, passed)
                watch.away = 0.0
            except UserError as error:
                watch.away += passed
                if watch.away > AWAY_SECONDS or (watch.flow_run is None and not isinstance(error, Away)):
                    watch.error = error

    def _judge(
        self, watch: Watch, now: Seen | None, served: dict[str, pools.Served], away: UserError | None, passed: float
    ) -> None:
        """What is to be thought of an attempt."""
        before, watch.seen = watch.seen, now or watch.seen
        if away or (now and now.state not in (flowruns.WAITING, *flowruns.WORKING)):
            watch.ended = self.orders.ended(watch.attempt)  # after the state: who ends has written it before
            if watch.ended is not None:
                watch.times.append(time.monotonic())
                return
        if away:
            raise away
        if now is None:
            return  # to be submitted at the next look
        known = before is not None and (before.state, before.beat) == (now.state, now.beat)
        watch.quiet = watch.quiet + passed if known else 0.0
        pool = watch.attempt.order.pool
        if now.state in flowruns.OVER:
            watch.ended = _without_outcome(now)
        elif now.state == "RUNNING":
            if not watch.times:
                watch.times.append(time.monotonic())
                watch.say(f"attempt {watch.attempt.number}: a worker has begun", True)
            if now.words and (before is None or before.words != now.words):
                watch.say(now.words, False)
            if watch.quiet > self.silent:
                self._give_up(watch, f"it gave no sign of life for {self.silent:g} s")
        elif now.state == "PENDING" and watch.quiet > max(self.silent, _start_seconds(served.get(pool))):
            self._give_up(watch, f"a worker took it, and did not begin within {watch.quiet:.0f} s")
        elif now.state == flowruns.WAITING and pool in served:
            self._unbegun(watch, served[pool], passed)

    def _unbegun(self, watch: Watch, served: pools.Served, passed: float) -> None:
        """Say what an attempt waits for that nobody has taken; give it up where nobody serves its pool."""
        pool = watch.attempt.order.pool
        if served.workers:
            watch.unserved = 0.0
            watch.say(f"waits for a worker of pool {pool}", False)
            return
        watch.unserved += passed
        watch.say(f"waits: no worker serves pool {pool} now", False)
        if watch.unserved > UNSERVED_SECONDS:
            why = f"nobody has served pool {pool} for {watch.unserved:.0f} s; start one: remint worker --pool {pool}"
            self._stop(watch, why)
            watch.ended = Ended("failed", why=why, retry=False)

    def _give_up(self, watch: Watch, why: str) -> None:
        assert watch.flow_run is not None
        flowruns.end(watch.flow_run, why, cancelled=False)
        watch.ended = self.orders.ended(watch.attempt) or Ended("lost", why=why)

    def _stop(self, watch: Watch, why: str) -> None:
        """Nobody waits any more: a worker that has begun writes a checkpoint and ends."""
        self.orders.close(watch.attempt, Ended("preempted", why=why))
        if watch.flow_run is not None:
            flowruns.end(watch.flow_run, why, cancelled=True)


def _without_outcome(now: Seen) -> Ended:
    """What it means that a flow run is over, and nothing was written about it."""
    if now.state == "CANCELLED":
        return Ended("failed", why="was cancelled in Prefect", retry=False)
    if now.state == "FAILED":  # before it could write: the worker is not fit
        return Ended("rejected", why=now.message, retry=False)
    return Ended("lost", why=now.message or "its worker ended")


def _start_seconds(served: pools.Served | None) -> float:
    return START_SECONDS.get(served.kind if served else "", SLOW_START_SECONDS)
