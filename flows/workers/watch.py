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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from data.core.params import UserError
from flows.stage.process import Say, Stopped
from flows.stage.spending import Usage
from flows.workers import flowruns, pools
from flows.workers.flowruns import Away, Seen
from flows.workers.orders import Attempt, Ended, Orders

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POLL_SECONDS = 1.0  # between two times that a thread asks whether it is its turn to look
LOOK_SECONDS = 2.0  # between two looks at Prefect; a longer time between them counts as this much
LOOK_SHARE = 0.1  # of a core, at most, goes into looking where there is very much to look at
SUBMITTED = 200  # at most, between two looks
AWAY_SECONDS = 600.0  # that a server may be away before it is said that nothing goes on
START_SECONDS = {pools.PROCESS: 120.0}  # that the start of a job may take, by type of pool
SLOW_START_SECONDS = 900.0  # of a pod: its image is large, its machine is yet to come
UNSERVED_SECONDS = 300.0


@dataclass(eq=False)
class Watch:
    """One attempt that somebody waits for."""

    attempt: Attempt
    say: Say
    ended: Ended | None = None
    error: UserError | None = None  # bucket or Prefect are away for good
    flow_run: UUID | None = None
    situation: tuple[str, ...] = ()  # what was last seen of it
    stuck: float = 0.0  # seconds in which that has not changed
    times: list[float] = field(default_factory=list)  # when it was first seen at work, and when its outcome came

    def usage(self) -> Usage:
        """What the attempt has cost: by the worker's word at its end, before that the time since it began."""
        if self.ended is not None and self.ended.usage.seconds:
            return self.ended.usage
        if not self.times:
            return Usage()
        return Usage(seconds=round((self.times[-1] if self.ended else time.monotonic()) - self.times[0], 3))

    @property
    def open(self) -> bool:
        return self.ended is None and self.error is None

    def lasts(self, situation: tuple[str, ...], passed: float) -> float:
        """Note what was seen; for how long that has not changed."""
        self.stuck = self.stuck + passed if situation == self.situation else 0.0
        self.situation = situation
        return self.stuck


class Watches:
    """All open attempts of a run."""

    def __init__(self, orders: Orders, silent: float) -> None:
        self.orders, self.silent = orders, silent  # seconds without a sign of life after which a worker is lost
        self._all: dict[Watch, None] = {}
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._pace = LOOK_SECONDS

    def add(self, attempt: Attempt, say: Say) -> Watch:
        """Have an attempt submitted and looked at from now on."""
        part = f"part {attempt.order.part}: " if attempt.order.part else ""
        watch = Watch(attempt, lambda text, whole: say(part + text, whole))
        with self._lock:
            self._all[watch] = None
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
                for watch in watches:
                    del self._all[watch]

    def look(self) -> None:
        """Look at all open attempts, if it is time to."""
        with self._lock:
            now = time.monotonic()
            passed = 0.0 if self._looked is None else now - self._looked
            if self._looked is not None and passed < self._pace:
                return
            self._looked, began = now, time.thread_time()  # and not by the clock: a slow server is no work
            self._look([watch for watch in self._all if watch.open], min(passed, 2 * self._pace))
            self._pace = max(LOOK_SECONDS, (time.thread_time() - began) / LOOK_SHARE)

    def _look(self, watches: list[Watch], passed: float) -> None:
        seen: dict[UUID, Seen] = {}
        served: dict[str, pools.Served] = {}
        away: UserError | None = None
        try:
            with flowruns.client() as api:
                self._submit(api, [watch for watch in watches if watch.flow_run is None][:SUBMITTED])
                seen = flowruns.look(api, [watch.flow_run for watch in watches if watch.flow_run is not None])
                unbegun = {run for run, state in seen.items() if state.state in (flowruns.WAITING, "PENDING")}
                for pool in {watch.attempt.order.pool for watch in watches if watch.flow_run in unbegun}:
                    served[pool] = pools.served(api, pool)
        except UserError as error:
            away = error
        for watch in [watch for watch in watches if watch.open]:
            now = seen.get(watch.flow_run) if watch.flow_run else None
            try:
                if away or (now and now.state not in (flowruns.WAITING, *flowruns.WORKING)):
                    watch.ended = self.orders.ended(watch.attempt)  # after the state: who ends has written it before
                if watch.ended is None and away:
                    raise away
                if watch.ended is None and now is not None:
                    self._judge(watch, now, served.get(watch.attempt.order.pool), passed)
            except UserError as error:
                refused = watch.flow_run is None and not isinstance(error, Away)
                if watch.lasts(("away",), passed) > AWAY_SECONDS or refused:
                    watch.error = error
            if watch.ended is not None:
                watch.times.append(time.monotonic())

    def _submit(self, api: SyncPrefectClient, watches: list[Watch]) -> None:
        deployments: dict[str, UUID] = {}
        for watch in watches:
            try:
                watch.flow_run = flowruns.submit(api, watch.attempt, deployments)
            except Away:
                raise
            except UserError as error:
                watch.error = error

    def _judge(self, watch: Watch, now: Seen, served: pools.Served | None, passed: float) -> None:
        """What is to be thought of an attempt of which nobody has said what came of it."""
        pool, manned = watch.attempt.order.pool, now.state == flowruns.WAITING and bool(served and served.workers)
        words = watch.situation[2:3] != (now.words,) and now.words
        stuck = watch.lasts((now.state, now.beat, now.words, str(manned)), passed)
        if now.state in flowruns.OVER:
            watch.ended = _without_outcome(now)
        elif now.state == "RUNNING":
            if not watch.times:
                watch.times.append(time.monotonic())
                watch.say(f"attempt {watch.attempt.number}: a worker has begun", True)
            if words:
                watch.say(words, False)
            if stuck > self.silent:
                self._give_up(watch, f"it gave no sign of life for {self.silent:g} s")
        elif now.state == "PENDING":
            if stuck > max(self.silent, START_SECONDS.get(served.kind if served else "", SLOW_START_SECONDS)):
                self._give_up(watch, f"a worker took it, and did not begin within {stuck:.0f} s")
        elif now.state == flowruns.WAITING and manned:
            watch.say(f"waits for a worker of pool {pool}", False)
        elif now.state == flowruns.WAITING:
            watch.say(f"waits: no worker serves pool {pool} now", False)
            if stuck > UNSERVED_SECONDS:
                why = f"nobody has served pool {pool} for {stuck:.0f} s; start one: remint worker --pool {pool}"
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
