"""One attempt as seen by who waits for it: its beats, its outcome, and what is done if neither comes.

The ledger is the truth. Prefect is asked only about an attempt that no worker has begun: whether its flow run still
waits, was cancelled by a person, or was lost. Silence is measured in this process's own time, and only while it looks:
a waiting process that was itself suspended, or saw nothing because the store was away, gives nobody up for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from data.core.params import UserError
from flows.remote import orders
from flows.remote.ledger import Attempt, Beat, Ledger, Outcome, Usage
from flows.remote.patience import SECONDS

LOOK_SECONDS = 3.0  # a longer time between two looks counts as this much
ORDER_SECONDS = 5.0  # between two questions to Prefect
AGAIN_SECONDS = 1.0  # the same, while it could not be asked

Say = Callable[[str, bool], None]  # a text, and whether it is to be kept: not the state of something that goes on


@dataclass
class Watch:
    """Waits for the end of one attempt; `poll` is called about once a second."""

    ledger: Ledger
    attempt: Attempt
    vanished: float  # seconds without a beat after which a worker is given up
    say: Say
    served: Callable[[], bool]  # whether somebody serves the pool
    beat: Beat | None = None
    outcome: Outcome | None = None
    _order: UUID | None = None
    _asked: float = float("-inf")
    _looked: float = field(default_factory=lambda: time.monotonic())
    _begun: float = 0.0  # when the first beat was seen
    _ended: float | None = None  # when the outcome was seen
    _silent: float = 0.0  # seconds without a new beat
    _taken: float = 0.0  # seconds since a worker took it, without a beat
    _unserved: float = 0.0  # seconds during which nobody served the pool
    _away: float = 0.0  # seconds for which ledger or Prefect have not answered

    def poll(self) -> Outcome | None:
        """What came of the attempt, None while it is open. UserError if ledger or Prefect are away for good."""
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        try:
            self._look(min(passed, LOOK_SECONDS))
            self._away = 0.0
        except UserError:
            self._away += passed
            if self._away > SECONDS:
                raise
        if self.outcome is not None:
            self._ended = now
        return self.outcome

    def usage(self) -> Usage:
        """What the attempt has cost: by the worker's word at its end, before that the time since its first beat."""
        if self.outcome is not None and self.outcome.usage.seconds:
            return self.outcome.usage
        until = time.monotonic() if self._ended is None else self._ended
        return Usage(seconds=round(until - self._begun, 3)) if self.beat is not None else Usage()

    def stop(self, why: str) -> None:
        """Give the attempt back: a worker that has begun writes a checkpoint and ends."""
        self._close(Outcome("given back", why=why), cancelled=True)

    def _look(self, since: float) -> None:
        """Read the ledger; close the attempt if its worker is gone."""
        self.outcome = self.ledger.outcome(self.attempt)
        if self.outcome is not None:
            return
        beat, before = self.ledger.last_beat(self.attempt), self.beat
        if beat is None:
            if self._looked - self._asked >= ORDER_SECONDS:
                self._asked = self._looked
                self._ask()
        elif beat == before:
            self._silent += since
            if self._silent > self.vanished:
                self._close(Outcome("vanished", why=f"{beat.worker} gave no sign of life for {self.vanished:g} s"))
        else:
            self.beat, self._silent = beat, 0.0
            if before is None:
                self._begun = self._looked
                self.say(f"attempt {self.attempt.number}: {beat.worker} has begun", True)
            self.say(beat.text, False)

    def _ask(self) -> None:
        """Ask Prefect about an attempt that nobody has begun; close it if nobody ever will."""
        stand = orders.stand(self._order) if self._order else "lost"
        if stand == "lost":
            self._order = orders.place(self.attempt)
            if self._order is None:  # the server is away, or just busy
                self._asked -= ORDER_SECONDS - AGAIN_SECONDS
        elif stand == "cancelled":
            self._close(Outcome("failed", why="was cancelled in Prefect", retry=False))
        elif stand == "ended":
            self._close(Outcome("vanished", why="its worker ended before it began"))
        self._taken = self._taken + ORDER_SECONDS if stand == "taken" else 0.0
        if self._taken > self.vanished:
            self._close(Outcome("vanished", why=f"a worker took it, and did not begin within {self.vanished:g} s"))
        elif stand == "waiting":
            self._wait()

    def _wait(self) -> None:
        """Say what an attempt waits for that nobody has taken; give it up where nobody serves its pool."""
        pool = self.attempt.work.pool
        if self.served():
            self._unserved = 0.0
            self.say(f"waits for a worker of pool {pool}", False)
            return
        self._unserved += ORDER_SECONDS
        self.say(f"waits: no worker serves pool {pool} now", False)
        if self._unserved > SECONDS:
            why = f"nobody has served pool {pool} for {self._unserved:.0f} s; start one: remint worker --pool {pool}"
            self._close(Outcome("failed", why=why, retry=False))

    def _close(self, outcome: Outcome, *, cancelled: bool = False) -> None:
        """Settle the attempt; whoever was first has said what came of it."""
        self.outcome = outcome if self.ledger.close(self.attempt, outcome) else self.ledger.outcome(self.attempt)
        if self.outcome == outcome and self._order is not None:
            orders.end(self._order, outcome.why, cancelled=cancelled)
