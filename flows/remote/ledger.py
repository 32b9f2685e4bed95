"""Attempts at stages by workers, in a bucket: who is asked to try, that it lives, and what came of it.

    stages/<stage>/<key>/0001/attempt.json    created once: what to do, by which pool
    stages/<stage>/<key>/0001/beat.json       replaced again and again by the worker: it lives, this is how far it is
    stages/<stage>/<key>/0001/outcome.json    created once: what came of it

The key is the digest of everything that goes into the stage, so two runs that want the same work find the same
attempts. `close` is the fence: an outcome is created by whoever is first, the worker that did the work or the one who
gave it up as vanished. A worker that comes too late is told so and publishes nothing, also when the work was forgotten
meanwhile or begun anew under the same number: an attempt is known by its token. Nothing here reads a clock: who watches
compares beats with beats.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from data.core.params import UserError
from flows.settings import Settings
from flows.storage import bucket
from flows.storage.protocol import Bucket, NotThere, Taken

T = TypeVar("T")
State = Literal[
    "succeeded",
    "failed",  # the stage ended with an error
    "refused",  # the worker may not or cannot run it: other lock file, other machine class, unknown commit
    "given back",  # the worker was asked to end (SIGTERM); the stage goes on from its checkpoint elsewhere
    "vanished",  # the worker gave no sign of life; it is fenced
]


@dataclass(frozen=True)
class Work:
    """What a worker is told to do."""

    stage: str  # as in dvc.yaml
    key: str  # digest of everything that goes in
    commit: str  # 40 hex digits; fetched from the worker's origin
    lock: Mapping[str, Any]  # entries of dvc.lock of the stages before it, by stage: what its inputs are
    run: str  # id of the run that asked first, for tracking
    pool: str
    timeout: float | None = None  # seconds
    environment: Mapping[str, Any] = field(default_factory=dict)  # that the run allows, see flows.remote.refuse
    part: str = ""  # "2/4": only these shards, into the checkpoint store; "" for the whole stage
    soon: tuple[str, ...] = ()  # DVC digests that stages behind it will read: fetched while it works
    proof: str = ""  # of a reproduction: what is known of the key counts for nothing, and what it gives for nobody else
    variables: Mapping[str, str] | None = None  # thread counts and such; None: the worker's own


@dataclass(frozen=True)
class Attempt:
    """One try at some work."""

    number: int  # 1, 2, ...
    work: Work
    token: str = ""  # random: tells it from a later attempt at its place

    @property
    def place(self) -> str:
        return f"{_folder(self.work)}/{self.number:04d}"


@dataclass(frozen=True)
class Beat:
    """A sign of life; `count` grows with each one."""

    count: int
    worker: str
    text: str = ""  # the stage's latest words: step, loss, images/s, time left


@dataclass(frozen=True)
class Usage:
    """What an attempt cost."""

    seconds: float = 0.0  # of a machine, with fetching and pushing
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0  # during which GPUs were held, times their number
    bytes_in: int = 0
    bytes_out: int = 0
    peak_memory: int = 0  # bytes, of the stage's largest process


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt."""

    state: State
    worker: str = ""  # its name; "" if the one who waited closed it
    host: str = ""
    why: str = ""  # one line, "" for "succeeded"
    retry: bool = True  # whether another attempt may help; a mistake in the input stays one
    resumed: bool = False  # it went on from a checkpoint
    entry: Mapping[str, Any] = field(default_factory=dict)  # the stage's part of dvc.lock, of "succeeded"
    seconds: float = 0.0  # of the stage itself
    usage: Usage = field(default_factory=Usage)
    log: str = ""  # the last part of what the stage printed
    environment: str = ""  # in which the stage ran, as flows.pipeline.environment writes it


class Ledger:
    """The attempts in one bucket. Every method may raise UserError: the bucket does not answer."""

    def __init__(self, store: Bucket) -> None:
        self.store = store

    def attempts(self, work: Work) -> list[Attempt]:
        """Every attempt at this work, first to last."""
        folder = _folder(work)
        names = [key for key in self.store.list(f"{folder}/") if key.endswith("/attempt.json")]
        found = []
        for name in names:
            with contextlib.suppress(NotThere):  # forgotten in this moment
                found.append(self.attempt(name.removesuffix("/attempt.json")))
        return found

    def attempt(self, place: str) -> Attempt:
        """The attempt at a place, as a worker is told it; NotThere."""
        key = f"{place}/attempt.json"
        return self._made(key, self.store.read(key), _attempt)

    def open(self, work: Work) -> Attempt | None:
        """A new attempt, numbered after those there are; None if somebody else was quicker."""
        folder = _folder(work)
        there = [key.removeprefix(f"{folder}/").partition("/")[0] for key in self.store.list(f"{folder}/")]
        made = Attempt(max(map(int, there), default=0) + 1, work, uuid.uuid4().hex)
        return made if self._create(f"{made.place}/attempt.json", asdict(made)) else None

    def beat(self, attempt: Attempt, beat: Beat) -> None:
        self.store.replace(f"{attempt.place}/beat.json", _bytes(asdict(beat)))

    def last_beat(self, attempt: Attempt) -> Beat | None:
        """The newest sign of life, None if no worker has begun."""
        return self._read(f"{attempt.place}/beat.json", lambda values: Beat(**values))

    def close(self, attempt: Attempt, outcome: Outcome) -> bool:
        """Say what came of an attempt; False if that is settled already, and nothing of this outcome counts."""
        return self.is_known(attempt) and self._create(f"{attempt.place}/outcome.json", asdict(outcome))

    def outcome(self, attempt: Attempt) -> Outcome | None:
        """What came of an attempt, None while it is open."""
        if not self.is_known(attempt):
            return Outcome("vanished", why="it was forgotten: its result is there, or was given up")
        return self._read(f"{attempt.place}/outcome.json", _outcome)

    def is_known(self, attempt: Attempt) -> bool:
        """Whether the attempt was neither forgotten nor replaced by a later one at its place."""
        return self._read(f"{attempt.place}/attempt.json", lambda values: values["token"]) == attempt.token

    def forget(self, work: Work) -> None:
        """Remove every trace of work whose result is in the run cache; of each attempt what makes it known first."""
        for key in self.store.list(f"{_folder(work)}/"):
            self.store.delete(key)

    def _create(self, key: str, values: Mapping[str, Any]) -> bool:
        try:
            self.store.create(key, _bytes(values))
        except Taken:
            return False
        return True

    def _read(self, key: str, made: Callable[[Any], T]) -> T | None:
        try:
            return self._made(key, self.store.read(key), made)
        except NotThere:
            return None

    def _made(self, key: str, data: bytes, made: Callable[[Any], T]) -> T:
        """What an object of the ledger says; UserError names one that is damaged."""
        try:
            return made(json.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            where = f"{self.store.name}/{key}"
            step = f"if no run is under way, remove {where.rpartition('/')[0]}: its stage is tried again"
            raise UserError(f"{where} is damaged ({error}); {step}") from None


def open(settings: Settings) -> Ledger:
    """The ledger that orchestrators and workers share: REMINT_LEDGER."""
    address = settings.ledger
    here = address if "://" in address else str(settings.root / Path(address).expanduser())
    return Ledger(bucket.at(here, "REMINT_LEDGER"))


def part(work: Work, number: int, count: int) -> Work:
    """The work of making only the shards with index % count == number - 1."""
    return replace(work, part=f"{number}/{count}")


def _attempt(values: Mapping[str, Any]) -> Attempt:
    work = values["work"]
    return Attempt(values["number"], Work(**(work | {"soon": tuple(work["soon"])})), values["token"])


def _outcome(values: Mapping[str, Any]) -> Outcome:
    return Outcome(**(dict(values) | {"usage": Usage(**values["usage"])}))


def _folder(work: Work) -> str:
    """Where the attempts at some work lie; those of a reproduction are never those of a run."""
    inner = f"part-{work.part.replace('/', '-of-')}" if work.part else "whole"
    return f"stages/{_plain(work.stage)}/{work.key}/{f'{_plain(work.proof)}-' if work.proof else ''}{inner}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.@+=-]", "_", name)


def _bytes(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, sort_keys=True, indent=1) + "\n").encode()
