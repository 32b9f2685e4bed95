"""A worker's sign of life while it has an attempt: beats for who waits, and a look whether somebody closed it.

with Pulse(ledger, attempt, "gpu-7", seconds=5.0, leave=leave) as pulse:
    ...                  # pulse.stop is set when the attempt was closed elsewhere, or the worker is to leave
    pulse.say("step 200, loss 0.31")
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from data.core.params import UserError
from flows.remote.ledger import Attempt, Beat, Ledger, Outcome

LOOK_SECONDS = 0.2  # how soon it is noticed that the worker is to leave
LONGEST = 200  # characters of a beat's words


class Pulse:
    """Beats from a thread of its own. A ledger that does not answer stops nothing: who waits decides about that."""

    def __init__(self, ledger: Ledger, attempt: Attempt, worker: str, seconds: float, leave: threading.Event) -> None:
        self.ledger, self.attempt, self.worker, self.seconds, self.leave = ledger, attempt, worker, seconds, leave
        self.stop = threading.Event()  # the stage is to be ended
        self.lost = threading.Event()  # somebody else has closed the attempt: nothing of it counts
        self.closed: Outcome | None = None  # what somebody else has closed the attempt with
        self._ended = threading.Event()
        self._text, self._count = "", 0
        self._thread = threading.Thread(target=self._run, name=f"pulse of {attempt.place}", daemon=True)

    def __enter__(self) -> Pulse:
        self._beat()  # at once: an attempt without one counts as not begun
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def say(self, text: str) -> None:
        """What the next beats tell."""
        self._text = text[:LONGEST]

    def _run(self) -> None:
        due = time.monotonic() + self.seconds
        while not self._ended.wait(LOOK_SECONDS):
            if self.leave.is_set():
                self.stop.set()
            if time.monotonic() >= due and self.closed is None:
                self._beat()
                due = time.monotonic() + self.seconds

    def _beat(self) -> None:
        self._count += 1
        try:
            self.closed = self.ledger.outcome(self.attempt)
            if self.closed is None:
                self.ledger.beat(self.attempt, Beat(self._count, self.worker, self._text))
        except UserError:
            return
        if self.closed is not None:
            self.lost.set()
            self.stop.set()
