"""Of several who want the same run at once, one runs it: two triggers for one commit give one run.

The claim is an attempt in the ledger, at the work of running this commit with these parameters and this data. Who
holds it gives signs of life; whoever comes second says so and leaves, or takes over from one that is dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from data.core.params import UserError
from flows.pipeline import workspace
from flows.remote import ledger
from flows.remote.ledger import Attempt, Beat, Ledger, Outcome, Work
from flows.remote.patience import patiently
from flows.retrain.job import Job

STAGE = "_run"
BEAT_SECONDS = 2.0


class UnderWay(Exception):
    """Somebody else runs this already."""

    def __init__(self, run: str, host: str) -> None:
        super().__init__(f"run {run} of the same commit, parameters and data is under way on {host}")
        self.run, self.host = run, host


@dataclass(frozen=True)
class Claim:
    """The right to run a job, as long as nobody took it over."""

    ledger: Ledger
    attempt: Attempt
    dead: tuple[str, ...]  # ids of runs that held it before and were killed

    def check(self) -> None:
        """UserError if somebody took over: this process was suspended or cut off for too long."""
        outcome = patiently(self.ledger.outcome, self.attempt)
        if outcome is not None:
            raise UserError(
                f"run {self.attempt.work.run} gave no sign of life for too long, and another took it over; "
                "see remint status"
            )


@contextmanager
def held(job: Job, say: Callable[[str], None]) -> Iterator[Claim]:
    """Hold the claim to a job; UnderWay if somebody else lives who does."""
    claim = _take(job, ledger.open(job.settings), say)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(claim, ended), daemon=True, name="claim")
    beating.start()
    try:
        yield claim
    finally:
        ended.set()
        beating.join()
        with contextlib.suppress(UserError):
            if claim.ledger.close(claim.attempt, Outcome("succeeded")):
                claim.ledger.forget(claim.attempt.work)


def clear(job: Job, say: Callable[[str], None]) -> list[str]:
    """Forget the claim of a run that did all its work and was killed before it could say so; returns its id."""
    where, work = ledger.open(job.settings), _work(job)
    there = where.attempts(work)
    if not there or (where.outcome(there[-1]) is None and _lives(job, where, there[-1], say)):
        return []
    where.forget(work)
    return [held.work.run for held in there]


def _work(job: Job) -> Work:
    home = {"host": socket.gethostname(), "home": str(job.settings.home)}
    proof = job.again.proof if job.again else ""
    return Work(STAGE, _key(job), job.run.base_commit, {}, job.run.id, "", environment=home, proof=proof)


def _take(job: Job, where: Ledger, say: Callable[[str], None]) -> Claim:
    work = _work(job)
    dead: list[str] = []
    while True:
        there = where.attempts(work)
        if there and where.outcome(there[-1]) is None:
            last = there[-1]
            if _lives(job, where, last, say):
                raise UnderWay(last.work.run, last.work.environment["host"])
            if where.close(last, Outcome("vanished", why="no sign of life")):
                say(f"run {last.work.run} on {last.work.environment['host']} is dead: taking over")
                dead.append(last.work.run)
        if made := where.open(work):
            return Claim(where, made, tuple(dead))


def _lives(job: Job, where: Ledger, held: Attempt, say: Callable[[str], None]) -> bool:
    """Whether who holds the claim gives a sign of life; for one of this machine the system knows at once."""
    about = held.work.environment
    if (about["host"], about["home"]) == (socket.gethostname(), str(job.settings.home)):
        return held.work.run in workspace.living(job.settings) - {job.run.id}
    say(f"run {held.work.run} holds this work on {about['host']}: waiting for a sign of life")
    first, until = where.last_beat(held), time.monotonic() + job.settings.vanished
    while time.monotonic() < until:
        time.sleep(BEAT_SECONDS / 4)
        if where.outcome(held) is not None:
            return False
        if where.last_beat(held) != first:
            return True
    return False


def _beat(claim: Claim, ended: threading.Event) -> None:
    count = 0
    while True:
        count += 1
        with contextlib.suppress(UserError):  # the ledger is away: the next one may be heard
            claim.ledger.beat(claim.attempt, Beat(count, socket.gethostname()))
        if ended.wait(BEAT_SECONDS):
            return


def _key(job: Job) -> str:
    """What makes two runs the same: commit, parameters, and what the first stages read. A reproduction has a name."""
    if job.again:
        return hashlib.sha256(job.again.proof.encode()).hexdigest()
    first = [stage for stage in job.stages if not stage.upstream]
    deps = {stage.name: {dep: job.store.content(stage, dep, {}) for dep in stage.deps} for stage in first}
    text = json.dumps([job.run.base_commit, job.run.parameters, deps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
