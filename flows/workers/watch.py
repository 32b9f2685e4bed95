"""One attempt as seen by who waits for it: its outcome in the bucket, or that no worker works on it any more.

The bucket is asked for the outcome, Prefect for everything else. Silence is measured in this process's own time, and
only while the server answers: a waiting process that was itself suspended, or a server that is away, loses nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from data.core.params import UserError
from flows.stage.spending import Usage
from flows.workers import flowruns, pools
from flows.workers.flowruns import Away, Seen
from flows.workers.orders import Attempt, Ended, Orders

LOOK_SECONDS = 2.0  # between two looks at Prefect; a longer time between them counts as this much
AWAY_SECONDS = 600.0  # that a server may be away before it is said that nothing goes on
PENDING_SECONDS = 900.0  # that a pod may take to start: its image is large, its machine is yet to come
UNSERVED_SECONDS = 300.0

Say = Callable[[str, bool], None]  # a text, and whether it is to be kept: not the state of something that goes on


@dataclass
class Watch:
    """Waits for the end of one attempt; `poll` is called about once a second."""

    orders: Orders
    attempt: Attempt
    silent: float  # seconds without a sign of life after which a worker is taken for lost
    say: Say
    ended: Ended | None = None
    _flow_run: UUID | None = None
    _seen: Seen | None = None
    _looked: float | None = None
    _quiet: float = 0.0  # seconds since a sign of life, or since the state last changed
    _unserved: float = 0.0
    _away: float = 0.0
    _times: list[float] = field(default_factory=list)  # when it was first seen at work, and when its outcome came

    def poll(self) -> Ended | None:
        """What came of the attempt, None while it is open. UserError if bucket or Prefect are away for good."""
        now = time.monotonic()
        passed = 0.0 if self._looked is None else now - self._looked
        if self._looked is not None and passed < LOOK_SECONDS:
            return None
        self._looked = now
        try:
            self._look(min(passed, LOOK_SECONDS * 2))
            self._away = 0.0
        except UserError as error:
            self._away += passed
            if self._away > AWAY_SECONDS or (self._flow_run is None and not isinstance(error, Away)):
                raise
        if self.ended is not None:
            self._times.append(now)
        return self.ended

    def usage(self) -> Usage:
        """What the attempt has cost: by the worker's word at its end, before that the time since it began."""
        if self.ended is not None and self.ended.usage.seconds:
            return self.ended.usage
        if not self._times or self._seen is None:
            return Usage()
        return Usage(seconds=round((self._times[1] if self.ended else time.monotonic()) - self._times[0], 3))

    def stop(self, why: str) -> None:
        """Nobody waits any more: a worker that has begun writes a checkpoint and ends."""
        self.orders.close(self.attempt, Ended("preempted", why=why))
        if self._flow_run is not None:
            flowruns.end(self._flow_run, why, cancelled=True)

    def _look(self, passed: float) -> None:
        if self._flow_run is None:
            self._flow_run = flowruns.submit(self.attempt)
        before, away = self._seen, None
        try:
            self._seen = flowruns.look(self._flow_run)
        except Away as error:
            away = error
        self.ended = self.orders.ended(self.attempt)  # after the state: who ends has written it before
        if self.ended is not None:
            return
        if away is not None:
            raise away
        now = self._seen
        assert now is not None
        self._quiet = (
            0.0 if before is None or (before.state, before.beat) != (now.state, now.beat) else self._quiet + passed
        )
        if now.over:
            self.ended = self._without_outcome(now)
        elif now.state == "RUNNING":
            if not self._times:
                self._times.append(time.monotonic())
                self.say(f"attempt {self.attempt.number}: a worker has begun", True)
            if now.words:
                self.say(now.words, False)
            if self._quiet > self.silent:
                self._give_up(f"it gave no sign of life for {self.silent:g} s")
        elif now.state == "PENDING" and self._quiet > max(self.silent, PENDING_SECONDS):
            self._give_up(f"a worker took it, and did not begin within {self._quiet:.0f} s")
        elif now.state not in ("PENDING", "CANCELLING"):
            self._wait(passed)

    def _without_outcome(self, now: Seen) -> Ended:
        """What it means that a flow run is over, and nothing was written about it."""
        if now.state == "CANCELLED":
            return Ended("failed", why="was cancelled in Prefect", retry=False)
        if now.state == "FAILED":  # before it could write: the worker is not fit
            return Ended("rejected", why=now.message, retry=False)
        return Ended("lost", why=now.message or "its worker ended")

    def _give_up(self, why: str) -> None:
        assert self._flow_run is not None
        flowruns.end(self._flow_run, why, cancelled=False)
        self.ended = Ended("lost", why=why)

    def _wait(self, passed: float) -> None:
        """Say what an attempt waits for that nobody has taken; give it up where nobody serves its pool."""
        pool = self.attempt.order.pool
        if pools.online(pool):
            self._unserved = 0.0
            self.say(f"waits for a worker of pool {pool}", False)
            return
        self._unserved += passed
        self.say(f"waits: no worker serves pool {pool} now", False)
        if self._unserved > UNSERVED_SECONDS:
            why = f"nobody has served pool {pool} for {self._unserved:.0f} s; start one: remint worker --pool {pool}"
            self.stop(why)
            self.ended = Ended("failed", why=why, retry=False)
