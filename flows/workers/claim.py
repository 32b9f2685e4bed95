"""Of several who want the same run at once, one runs it: two triggers for one commit give one run.

    runs/<key>/0001/claim.json      created once: who has it
    runs/<key>/0001/beat.json       replaced every two seconds: it lives
    runs/<key>/0001/over.json       created once: it ended, or was taken for dead

The key is of the commit, its parameters and its data; all lies in the bucket of orders, REMINT_LEDGER. Whoever comes
second says so and leaves, or takes over from one that is dead.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from data.core.params import UserError
from flows.pipeline import workspace
from flows.pipeline.job import Job
from flows.settings import Settings
from flows.storage import bucket
from flows.storage.protocol import Bucket, NotThere, Taken
from flows.storage.retry import retry

BEAT_SECONDS = 2.0
SILENT_SECONDS = 30.0  # without a sign of life after which a run of another machine is dead


@dataclass(frozen=True)
class Holder:
    """Who has a claim."""

    folder: str  # in the bucket
    run: str
    host: str
    home: str
    token: str  # random: a later holder may have the same folder


class UnderWay(Exception):
    """Somebody else runs this already."""

    def __init__(self, run: str, host: str) -> None:
        super().__init__(f"run {run} of the same commit, parameters and data is under way on {host}")
        self.run, self.host = run, host


@dataclass(frozen=True)
class Claim:
    """The right to run a job, as long as nobody took it over."""

    store: Bucket
    holder: Holder
    dead: tuple[str, ...]  # ids of runs that held it before and were killed

    def check(self) -> None:
        """UserError if somebody took over: this process was suspended or cut off for too long."""
        if retry(_is_over, self.store, self.holder):
            raise UserError(
                f"run {self.holder.run} gave no sign of life for too long, and another took it over; see remint status"
            )


@contextmanager
def held(job: Job, say: Callable[[str], None]) -> Iterator[Claim]:
    """Hold the claim to a job; UnderWay if somebody else lives who does."""
    claim = _take(job, opened(job.settings), say)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(claim, ended), daemon=True, name="claim")
    beating.start()
    try:
        yield claim
    finally:
        ended.set()
        beating.join()
        with contextlib.suppress(UserError):
            if not _is_over(claim.store, claim.holder):
                _forget(claim.store, claim.holder.folder.rpartition("/")[0])


def clear(job: Job, say: Callable[[str], None]) -> list[str]:
    """Forget the claim of a run that did all its work and was killed before it could say so; returns its id."""
    store, folder = opened(job.settings), _folder(job)
    there = _holders(store, folder)
    if not there or (not _is_over(store, there[-1]) and _lives(job, store, there[-1], say)):
        return []
    _forget(store, folder)
    return [holder.run for holder in there]


def opened(settings: Settings) -> Bucket:
    """The bucket that orchestrators and workers share: REMINT_LEDGER."""
    return bucket.at(settings.ledger, "REMINT_LEDGER")


def _take(job: Job, store: Bucket, say: Callable[[str], None]) -> Claim:
    folder, dead = _folder(job), list[str]()
    while True:
        there = _holders(store, folder)
        if there and not _is_over(store, there[-1]):
            last = there[-1]
            if _lives(job, store, last, say):
                raise UnderWay(last.run, last.host)
            with contextlib.suppress(Taken):
                store.create(f"{last.folder}/over.json", _bytes({"why": "no sign of life"}))
                say(f"run {last.run} on {last.host} is dead: taking over")
                dead.append(last.run)
        number = int(there[-1].folder.rpartition("/")[2]) + 1 if there else 1
        home = str(job.settings.home)
        made = Holder(f"{folder}/{number:04d}", job.run.id, socket.gethostname(), home, uuid.uuid4().hex)
        with contextlib.suppress(Taken):
            store.create(f"{made.folder}/claim.json", _bytes(asdict(made)))
            return Claim(store, made, tuple(dead))


def _lives(job: Job, store: Bucket, holder: Holder, say: Callable[[str], None]) -> bool:
    """Whether who holds the claim gives a sign of life; for one of this machine the system knows at once."""
    if (holder.host, holder.home) == (socket.gethostname(), str(job.settings.home)):
        return holder.run in workspace.living(job.settings) - {job.run.id}
    say(f"run {holder.run} holds this work on {holder.host}: waiting for a sign of life")
    first, until = _last_beat(store, holder), time.monotonic() + SILENT_SECONDS
    while time.monotonic() < until:
        time.sleep(BEAT_SECONDS / 4)
        if _is_over(store, holder):
            return False
        if _last_beat(store, holder) != first:
            return True
    return False


def _beat(claim: Claim, ended: threading.Event) -> None:
    count = 0
    while True:
        count += 1
        with contextlib.suppress(UserError):  # the bucket is away: the next one may be heard
            claim.store.replace(f"{claim.holder.folder}/beat.json", _bytes({"count": count}))
        if ended.wait(BEAT_SECONDS):
            return


def _last_beat(store: Bucket, holder: Holder) -> bytes:
    try:
        return store.read(f"{holder.folder}/beat.json")
    except NotThere:
        return b""


def _is_over(store: Bucket, holder: Holder) -> bool:
    """Whether a holder was taken for dead, or its claim was forgotten, or taken anew since."""
    if bool(store.list(f"{holder.folder}/over.json")):
        return True
    try:
        return bool(json.loads(store.read(f"{holder.folder}/claim.json"))["token"] != holder.token)
    except NotThere:
        return True


def _holders(store: Bucket, folder: str) -> list[Holder]:
    """Who has had the claim, first to last; UserError names a damaged object."""
    found = []
    for key in store.list(f"{folder}/"):
        if key.endswith("/claim.json"):
            try:
                found.append(Holder(**json.loads(store.read(key))))
            except NotThere:  # forgotten in this moment
                continue
            except (ValueError, TypeError) as error:
                step = f"if no run is under way, remove {store.name}/{folder}"
                raise UserError(f"{store.name}/{key} is damaged ({error}); {step}") from None
    return found


def _forget(store: Bucket, folder: str) -> None:
    for key in sorted(store.list(f"{folder}/"), key=lambda key: key.endswith("over.json")):
        store.delete(key)  # what makes a holder known first


def _bytes(values: object) -> bytes:
    return (json.dumps(values, sort_keys=True) + "\n").encode()


def _folder(job: Job) -> str:
    """What makes two runs the same: commit, parameters, and what the first stages read. A reproduction has a name."""
    if job.again:
        return f"runs/{hashlib.sha256(job.again.proof.encode()).hexdigest()}"
    first = [stage for stage in job.stages if not stage.upstream]
    deps = {stage.name: {dep: job.store.content(stage, dep, {}) for dep in stage.deps} for stage in first}
    text = json.dumps([job.run.base_commit, job.run.parameters, deps], sort_keys=True)
    return f"runs/{hashlib.sha256(text.encode()).hexdigest()}"
