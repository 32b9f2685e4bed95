"""Runs stages on workers: the counterpart of `flows.stage.process` for a run whose stages lie on several machines.

    dispatcher = Dispatcher(job)
    dispatcher.run(stage, log, say, stop, spend)    # from many threads at once
    dispatcher.close()                              # writes dvc.lock

A stage whose key is in the run cache, here or in the remote, is not run. Otherwise there is one open attempt at its
key in the bucket of orders, whoever opened it: a run that was killed finds its attempts again, and two runs that want
the same work wait for the same worker. Everything that a run knows it could learn again from there and the remote.

For a reproduction (`Job.again`) there is no run cache: each of its stages is made by an attempt of its own, which stays
in the bucket until the reproduction is at its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data.core.params import UserError
from flows.pipeline import keys, outputs, workspace
from flows.pipeline.graph import Stage
from flows.pipeline.job import Job
from flows.pipeline.keys import Entry
from flows.pipeline.plan import overlap
from flows.stage.process import Action, Say, StageFailed
from flows.stage.spending import Reading
from flows.storage.retry import retry
from flows.workers import orders, pools
from flows.workers.orders import Attempt, Ended, Order
from flows.workers.watch import Watch, Watches

LOST_WORKERS = 5  # of one stage, in a row, before it is believed that the stage takes them down with it

Spend = Callable[[Reading], None]


@dataclass(frozen=True)
class Ran:
    """How a stage ended well."""

    action: Action
    host: str = ""  # where it ran, "" for this machine
    resumed: bool = False
    environment: str = ""  # in which it ran, as flows.pipeline.environment writes it; "" for this machine's


@dataclass
class Dispatcher:
    """The stages of one run, on workers."""

    job: Job
    entries: dict[str, Entry] = field(default_factory=dict)  # of stages that are up to date, by name
    _lock: threading.RLock = field(default_factory=threading.RLock)  # DVC's objects are for one thread at a time
    _asked: list[Order] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.orders = orders.opened(self.job.settings)
        self.watches = Watches(self.orders, self.job.settings.vanished)
        for stage in self.job.stages:
            entry = self.job.store.entry(stage)
            if entry is not None and self.job.plan.action(stage.name) == "current":
                self.entries[stage.name] = entry

    @property
    def slots(self) -> int:
        """How many stages may be under way at once: here they only wait."""
        return len(self.job.stages)

    def run(self, stage: Stage, log: Path, say: Say, stop: threading.Event, spend: Spend) -> Ran:
        """Bring one stage up to date on a worker; StageFailed when it fails, Stopped when `stop` is set."""
        try:
            key = self._key(stage, stop)
            if known := self._known(stage, key, stop):
                return known
            self._offer_inputs(stage, stop)
            order = self._order(stage, key)
            if stage.meta.parts:
                self._make_parts(order, say, stop, spend)
            return self._make(stage, order, log, say, stop, spend)
        except UserError as error:
            raise StageFailed(stage.name, str(error), log) from None

    def show(self, stage: Stage) -> None:
        """Put a stage's metrics and figures into the workspace."""
        wanted = outputs.shown(stage.metrics)
        with self._lock:
            retry(outputs.bring, self.job.store, [self.entries[stage.name]], wanted)

    def deliver(self) -> None:
        """Put into the workspace what the last steps of the run read, and into the remote what others lack of it."""
        retry(outputs.last_steps, self.job.store, self.entries.values())
        self._offer(out["md5"] for entry in self.entries.values() for out in entry["outs"])

    def close(self) -> None:
        """Write dvc.lock with every stage that is up to date, and forget attempts that came to nothing."""
        workspace.write_lock(self.job.run.workspace, self.entries)
        with contextlib.suppress(UserError):  # what stays is found by the next run that wants the same
            for order in self._asked:
                attempts = self.orders.attempts(order)
                ended = self.orders.ended(attempts[-1]) if attempts else None
                if ended is not None and not (order.proof and ended.state == "succeeded"):
                    self.orders.forget(order)

    def forget(self) -> None:
        """Forget every attempt at the stages of a reproduction that is at its end; what stays is found by gc."""
        with contextlib.suppress(UserError):
            for order in self._asked:
                self.orders.forget(order)

    # what a stage is

    def _key(self, stage: Stage, stop: threading.Event) -> str:
        """The key of the stage's execution, now that the stages before it are done."""
        with self._lock:
            produced = self._produced()
            deps = {dep: retry(self.job.store.content, stage, dep, produced, stop=stop) for dep in stage.deps}
            missing = [dep for dep, oid in deps.items() if oid is None]
            if missing:
                raise UserError(f"{', '.join(missing)} does not exist in commit {self.job.run.commit[:7]}; commit it")
            key = self.job.store.key(stage, deps)
        if key is None:
            raise UserError("it has no deps or no outs, so its result cannot be known again; name them in dvc.yaml")
        return key

    def _produced(self) -> dict[str, str]:
        entries = [*self._given().values(), *self.entries.values()]
        return {out["path"]: out["md5"] for entry in entries for out in entry.get("outs", [])}

    def _given(self) -> Mapping[str, Entry]:
        return self.job.again.given if self.job.again else {}

    def _known(self, stage: Stage, key: str, stop: threading.Event) -> Ran | None:
        """Whether the stage was executed before, by whomever, and its outputs are stored; then that counts."""
        if self.job.again:
            return None
        with self._lock:
            recorded = self.job.store.entry(stage)
            if recorded is not None and keys.of_entry(recorded) == key and self._is_stored(recorded, stop):
                self.entries[stage.name] = recorded
                return Ran("current")
            found = retry(self.job.store.accepted.find, key, stop=stop)
            if found is None or not self._is_stored(found, stop):
                return None
            self.entries[stage.name] = self.job.store.as_written(stage, found)
        with contextlib.suppress(UserError):  # what a run asked for that was killed before it took it
            self.orders.forget(self._order(stage, key))
        return Ran("restored")

    def _is_stored(self, entry: Entry, stop: threading.Event) -> bool:
        return retry(self.job.store.stored, {out["path"]: out["md5"] for out in entry["outs"]}, stop=stop)

    def _order(self, stage: Stage, key: str) -> Order:
        root = self.job.run.workspace
        lock, again = root / "requirements.lock", self.job.again
        made = Order(
            stage=stage.name,
            key=key,
            commit=self.job.run.commit,
            lock={**self._given(), **{name: self.entries[name] for name in stage.upstream}},
            run=self.job.run.id,
            pool=stage.meta.pool,
            timeout=stage.meta.timeout,
            environment={"lock": hashlib.sha256(lock.read_bytes()).hexdigest()} if lock.exists() else {},
            proof=again.proof if again else "",
            variables=again.variables.get(stage.name) if again else None,
        )
        self._asked.append(made)
        return made

    def _offer_inputs(self, stage: Stage, stop: threading.Event) -> None:
        """Make sure that a worker finds the stage's inputs in the remote: those of earlier runs may be here alone."""
        entries = [*self._given().values(), *(self.entries[name] for name in stage.upstream)]
        outs = [out for entry in entries for out in entry["outs"]]
        self._offer((out["md5"] for out in outs if any(overlap(out["path"], dep) for dep in stage.deps)), stop)

    def _offer(self, oids: Iterable[str], stop: threading.Event | None = None) -> None:
        lacking = {oid for oid in oids if not retry(self.job.store.accepted.holds, oid, stop=stop)}
        if lacking:
            with self._lock:
                retry(self.job.store.cache.push, lacking, stop=stop)

    # its attempts

    def _make(self, stage: Stage, order: Order, log: Path, say: Say, stop: threading.Event, spend: Spend) -> Ran:
        """Have workers try until one succeeded, or it is clear that it will not."""
        lost = after = 0
        while True:
            (watch,) = self._watch([order], after, say, stop, spend)
            (ended,) = self.watches.wait([watch], stop)
            after = watch.attempt.number
            _keep_log(log, watch.attempt, ended)
            if ended.state == "succeeded" and (ran := self._accept(stage, order, ended, stop)):
                return ran
            if ended.state in ("failed", "rejected"):
                raise StageFailed(order.stage, ended.why, log, retry=ended.retry and ended.state == "failed")
            if known := self._known(stage, order.key, stop):  # an earlier attempt, or another run's, has made it
                return known
            lost += ended.state != "preempted"
            if lost == LOST_WORKERS:
                why = f"{lost} workers were lost over it, the last because: {ended.why}"
                raise StageFailed(order.stage, why, log, retry=False)
            say(f"{ended.state} ({ended.why}): the next attempt goes on from its checkpoint", True)

    def _make_parts(self, order: Order, say: Say, stop: threading.Event, spend: Spend) -> None:
        """Let every worker make a part of the shards; what is missing afterwards, the whole stage makes."""
        count = pools.at_once(order.pool)
        if count < 2 or self._is_begun(order, stop):
            return
        parts, after = [order.of_part(number, count) for number in range(1, count + 1)], 0
        for _ in range(LOST_WORKERS):
            watches = self._watch(parts, after, say, stop, spend)
            ended = zip(parts, self.watches.wait(watches, stop), strict=True)
            parts = [part for part, one in ended if one.state in ("lost", "preempted")]
            after = max(watch.attempt.number for watch in watches)
            if not parts:
                break

    def _is_begun(self, order: Order, stop: threading.Event) -> bool:
        """Whether the whole stage is being made, or was, by a run that had all parts."""
        attempts = retry(self.orders.attempts, order, stop=stop)
        ended = retry(self.orders.ended, attempts[-1], stop=stop) if attempts else None
        return bool(attempts) and (ended is None or ended.state == "succeeded")

    def _watch(self, works: Sequence[Order], after: int, say: Say, stop: threading.Event, spend: Spend) -> list[Watch]:
        """Of the whole stage or its parts the newest attempts behind this number, by whomever, that are open or
        succeeded; else new ones."""
        last = {made.order.part: made for made in retry(self.orders.attempts, works[0], stop=stop)}
        attempts = []
        for order in works:
            made = last.get(order.part)
            ended = retry(self.orders.ended, made, stop=stop) if made and made.number > after else None
            if made is None or made.number <= after or (ended is not None and ended.state != "succeeded"):
                made = retry(self.orders.open, order, (made.number if made else 0) + 1, stop=stop)
            attempts.append(made)
        watches = [self.watches.add(attempt, say) for attempt in attempts]
        for watch in watches:
            spend(watch.usage)
        return watches

    # its result

    def _accept(self, stage: Stage, order: Order, ended: Ended, stop: threading.Event) -> Ran | None:
        """Take a worker's result into the run; None if it is not what was asked for.

        Of a run, the worker has put it into the run cache: other results for the same key are brought from there, so
        that who records the run raises the alarm.
        """
        with self._lock:
            store, entry = self.job.store, self.job.store.as_written(stage, ended.entry)
            oids = [out.get("md5") for out in entry["outs"]]
            there = all(oid and retry(store.accepted.holds, oid, stop=stop) for oid in oids)
            right = there and keys.of_entry(entry) == order.key
            if right:
                self.entries[stage.name] = entry
                if not order.proof:
                    retry(store.accepted.gather, order.key, stop=stop)
        if not (right and order.proof):
            retry(self.orders.forget, order, stop=stop)
        return Ran("ran", ended.host, ended.resumed, ended.environment) if right else None


def _keep_log(log: Path, attempt: Attempt, ended: Ended) -> None:
    """Keep what the stage printed beside the logs of stages that run here."""
    if ended.log:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as sink:
            sink.write(f"--- attempt {attempt.number} on {ended.host}: {ended.state} after {ended.seconds:.2f} s\n")
            sink.write(ended.log.rstrip("\n") + "\n")
