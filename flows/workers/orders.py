"""Orders for stages and what came of them, in a bucket: REMINT_LEDGER.

    stages/<stage>/<key>/whole/0001/attempt.json    created once: what to do
    stages/<stage>/<key>/whole/0001/outcome.json    created once: what came of it
    runs/<key>/whole/0001/attempt.json              the same of a whole run

The key is the digest of everything that goes into the stage, so two runs that want the same work find the same
attempts. Nothing here is a lease or a lock: who gives an attempt up opens the next one, and whichever of them succeeds
first is taken. An attempt is known by its token, because its place is used again after the work was forgotten.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeVar

from data.core.params import UserError
from flows.settings import Settings
from flows.stage.spending import Usage
from flows.storage import bucket
from flows.storage.protocol import Bucket, NotThere, Taken

T = TypeVar("T")
State = Literal[
    "succeeded",
    "failed",  # the stage ended with an error
    "rejected",  # the worker may not or cannot run it: other packages, other class of machine, a foreign commit
    "preempted",  # the worker was asked to end (SIGTERM); the stage goes on from its checkpoint elsewhere
    "lost",  # no worker works on it any more; said by who waited, and written of runs alone
]


@dataclass(frozen=True)
class Order:
    """What a worker is told to do."""

    stage: str  # as in dvc.yaml; "": the run itself, which who asks does alone (flows.workers.claim)
    key: str  # digest of everything that goes in
    commit: str  # 40 hex digits; fetched from the worker's origin
    lock: Mapping[str, Any]  # entries of dvc.lock of the stages before it, by stage: what its inputs are
    run: str  # id of the run that asked first, for tracking
    pool: str
    timeout: float | None = None  # seconds
    environment: Mapping[str, Any] = field(default_factory=dict)  # that the run allows, see flows.workers.admission
    part: str = ""  # "2/4": only these shards, into the checkpoint store; "" for the whole stage
    proof: str = ""  # of a reproduction: what is known of the key counts for nothing, and what it gives for nobody else
    variables: Mapping[str, str] | None = (
        None  # thread counts and such (flows.pipeline.environment); None: the worker's own
    )
    host: str = ""  # of a run: where it is under way, and in which home
    home: str = ""

    @property
    def work(self) -> str:
        """What all its keys begin with, of the whole and of parts; a reproduction's are never those of a run."""
        kind = f"stages/{_plain(self.stage)}" if self.stage else "runs"
        return f"{kind}/{self.key}/{f'{_plain(self.proof)}-' if self.proof else ''}"

    @property
    def folder(self) -> str:
        """Where its attempts lie."""
        return self.work + (f"part-{self.part.replace('/', '-of-')}" if self.part else "whole")

    def of_part(self, number: int, count: int) -> Order:
        """The work of making only the shards with index % count == number - 1."""
        return replace(self, part=f"{number}/{count}")


@dataclass(frozen=True)
class Attempt:
    """One try at some work."""

    number: int  # 1, 2, ...
    order: Order
    token: str  # random: tells it from a later attempt at its place

    @property
    def place(self) -> str:
        return f"{self.order.folder}/{self.number:04d}"


@dataclass(frozen=True)
class Ended:
    """What came of an attempt."""

    state: State
    host: str = ""  # where it ran
    why: str = ""  # one line, "" for "succeeded"
    retry: bool = True  # whether another attempt may help; a mistake in the input stays one
    resumed: bool = False  # it went on from a checkpoint
    entry: Mapping[str, Any] = field(default_factory=dict)  # the stage's part of dvc.lock, of "succeeded"
    seconds: float = 0.0  # of the stage itself
    usage: Usage = field(default_factory=Usage)
    log: str = ""  # the last part of what the stage printed
    environment: str = ""  # in which the stage ran, as flows.pipeline.environment writes it


class Orders:
    """The attempts in one bucket. Every method may raise UserError: the bucket does not answer."""

    def __init__(self, store: Bucket) -> None:
        self.store = store

    def attempts(self, order: Order) -> list[Attempt]:
        """Every attempt at the whole work, or at each of its parts if the order is one of them; first to last."""
        found = []
        for key in self.store.list(f"{order.work}{'part-' if order.part else 'whole/'}"):
            if key.endswith("/attempt.json"):
                with contextlib.suppress(NotThere):  # forgotten in this moment
                    found.append(self.attempt(key.removesuffix("/attempt.json")))
        return found

    def attempt(self, place: str) -> Attempt:
        """The attempt at a place, as a worker is told it; NotThere."""
        key = f"{place}/attempt.json"
        return self._made(key, self.store.read(key), _attempt)

    def open(self, order: Order, number: int) -> Attempt:
        """The attempt of this number: made now, or by whoever was quicker."""
        made = Attempt(number, order, uuid.uuid4().hex)
        try:
            self.store.create(f"{made.place}/attempt.json", _bytes(vars(made) | {"order": vars(order)}))
        except Taken:
            return self.attempt(made.place)
        return made

    def close(self, attempt: Attempt, ended: Ended) -> bool:
        """Say what came of an attempt; False if that was said before, or the work was forgotten meanwhile."""
        try:
            if self._is_known(attempt):
                self.store.create(f"{attempt.place}/outcome.json", _bytes(asdict(ended)))
                return True
        except Taken:
            pass
        return False

    def is_open(self, attempt: Attempt) -> bool:
        """Whether nobody has said what came of an attempt, and the work was not forgotten."""
        return self._is_known(attempt) and self.ended(attempt) is None

    def ended(self, attempt: Attempt) -> Ended | None:
        """What came of an attempt, None while nobody has said so."""
        key = f"{attempt.place}/outcome.json"
        try:
            return self._made(key, self.store.read(key), _ended)
        except NotThere:
            return None

    def forget(self, order: Order) -> None:
        """Remove every trace of work whose result is in the run cache, of the whole and of its parts."""
        for inner in ("whole/", "part-"):
            for key in self.store.list(f"{order.work}{inner}"):
                self.store.delete(key)  # of each attempt first what makes it known

    def _is_known(self, attempt: Attempt) -> bool:
        try:
            return self.attempt(attempt.place).token == attempt.token
        except NotThere:
            return False

    def _made(self, key: str, data: bytes, made: Callable[[Any], T]) -> T:
        """What an object says; UserError names one that is damaged."""
        try:
            return made(json.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            where = f"{self.store.name}/{key}"
            step = f"if no run is under way, remove {where.rpartition('/')[0]}: its stage is tried again"
            raise UserError(f"{where} is damaged ({error}); {step}") from None


def opened(settings: Settings) -> Orders:
    """The orders that orchestrators and workers share: REMINT_LEDGER."""
    return Orders(bucket.at(settings.ledger, "REMINT_LEDGER"))


def _attempt(values: Mapping[str, Any]) -> Attempt:
    return Attempt(values["number"], Order(**values["order"]), values["token"])


def _ended(values: Mapping[str, Any]) -> Ended:
    return Ended(**(dict(values) | {"usage": Usage(**values["usage"])}))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.@+=-]", "_", name)


def _bytes(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, sort_keys=True, indent=1) + "\n").encode()
