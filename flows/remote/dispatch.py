"""Runs stages on workers: the counterpart of `flows.stage.process` for a run whose stages lie on several machines.

    dispatcher = Dispatcher(job, ...)
    dispatcher.run(stage, log, say, stop, spend)    # from many threads at once
    dispatcher.close()                              # writes dvc.lock

A stage whose key is in the run cache, here or in the remote, is not run. Otherwise there is one open attempt at its
key in the ledger, whoever opened it: a run that was killed finds its attempts again, and two runs that want the same
work wait for the same worker. Everything that a run knows it could learn again from the ledger and the remote.

For a reproduction (`Job.again`) there is no run cache: each of its stages is made by an attempt of its own, which stays
in the ledger until the reproduction is at its end.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from data.core.params import UserError
from flows.pipeline import keys, workspace
from flows.pipeline.graph import Stage
from flows.pipeline.keys import Entry
from flows.pipeline.plan import overlap
from flows.remote import bring, ledger, pools
from flows.remote.exchange import Exchange
from flows.remote.ledger import Attempt, Ledger, Outcome, Work
from flows.remote.patience import patiently
from flows.remote.watch import Say, Watch
from flows.retrain.job import Job
from flows.stage.process import Action, StageFailed, Stopped
from flows.stage.spending import Reading
from flows.storage.protocol import NotThere

POLL_SECONDS = 0.5
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
    ledger: Ledger
    exchange: Exchange
    entries: dict[str, Entry] = field(default_factory=dict)  # of stages that are up to date, by name
    _lock: threading.RLock = field(default_factory=threading.RLock)  # DVC's objects are for one thread at a time
    _asked: list[Work] = field(default_factory=list)

    def __post_init__(self) -> None:
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
            work = self._work(stage, key)
            if stage.meta.parts and not self._is_made(work, stop):
                self._make_parts(work, say, stop, spend)
            return self._make(stage, work, log, say, stop, spend)
        except UserError as error:
            raise StageFailed(stage.name, str(error), log) from None

    def show(self, stage: Stage) -> None:
        """Put a stage's metrics and figures into the workspace."""
        wanted = bring.shown(stage.metrics)
        with self._lock:
            patiently(bring.bring, self.job.store, self.exchange, [self.entries[stage.name]], wanted)

    def deliver(self) -> None:
        """Put into the workspace what the last steps of the run read, and into the remote what others lack of it."""
        patiently(bring.last_steps, self.job.store, self.job.settings, self.entries.values())
        self._offer(out["md5"] for entry in self.entries.values() for out in entry["outs"])

    def close(self) -> None:
        """Write dvc.lock with every stage that is up to date, and forget attempts that came to nothing."""
        workspace.write_lock(self.job.run.workspace, self.entries)
        with contextlib.suppress(UserError):  # what stays is found by the next run that wants the same
            for work in self._asked:
                attempts = self.ledger.attempts(work)
                outcome = self.ledger.outcome(attempts[-1]) if attempts else None
                if outcome is not None and not (work.proof and outcome.state == "succeeded"):
                    self.ledger.forget(work)

    def forget(self) -> None:
        """Forget every attempt at the stages of a reproduction that is at its end; what stays is found by gc."""
        with contextlib.suppress(UserError):
            for work in self._asked:
                self.ledger.forget(work)

    # what a stage is

    def _key(self, stage: Stage, stop: threading.Event) -> str:
        """The key of the stage's execution, now that the stages before it are done."""
        with self._lock:
            produced = self._produced()
            deps = {dep: patiently(self.job.store.content, stage, dep, produced, stop=stop) for dep in stage.deps}
            missing = [dep for dep, oid in deps.items() if oid is None]
            if missing:
                raise UserError(f"{', '.join(missing)} does not exist in commit {self.job.run.commit[:7]}")
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
            found = patiently(self.job.store.accepted.find, key, stop=stop)
            if found is None or not self._is_stored(found, stop):
                return None
            self.entries[stage.name] = self.job.store.as_written(stage, found)
            return Ran("restored")

    def _is_stored(self, entry: Entry, stop: threading.Event) -> bool:
        return patiently(self.job.store.stored, {out["path"]: out["md5"] for out in entry["outs"]}, stop=stop)

    def _work(self, stage: Stage, key: str) -> Work:
        root = self.job.run.workspace
        lock, again = root / "requirements.lock", self.job.again
        made = Work(
            stage=stage.name,
            key=key,
            commit=self.job.run.commit,
            lock={**self._given(), **{name: self.entries[name] for name in stage.upstream}},
            run=self.job.run.id,
            pool=stage.meta.pool,
            timeout=stage.meta.timeout,
            environment={"lock": hashlib.sha256(lock.read_bytes()).hexdigest()} if lock.exists() else {},
            soon=self._soon(stage),
            proof=again.proof if again else "",
            variables=again.variables.get(stage.name) if again else None,
        )
        self._asked.append(made)
        return made

    def _soon(self, stage: Stage) -> tuple[str, ...]:
        """Outputs that are known and that the stages right behind this one read beside its own."""
        behind = [other for other in self.job.stages if stage.name in other.upstream]
        known = {name for other in behind for name in other.upstream} - {stage.name, *stage.upstream}
        outs = [out for name in sorted(known) for out in self.entries.get(name, {}).get("outs", [])]
        wanted = [out for out in outs if any(overlap(out["path"], dep) for other in behind for dep in other.deps)]
        return tuple(dict.fromkeys(out["md5"] for out in wanted))

    def _offer_inputs(self, stage: Stage, stop: threading.Event) -> None:
        """Make sure that a worker finds the stage's inputs in the remote: those of earlier runs may be here alone."""
        entries = [*self._given().values(), *(self.entries[name] for name in stage.upstream)]
        outs = [out for entry in entries for out in entry["outs"]]
        self._offer((out["md5"] for out in outs if any(overlap(out["path"], dep) for dep in stage.deps)), stop)

    def _offer(self, oids: Iterable[str], stop: threading.Event | None = None) -> None:
        lacking = {oid for oid in oids if not patiently(self.job.store.accepted.holds, oid, stop=stop)}
        if lacking:
            self.exchange.push(lacking, stop)

    # its attempts

    def _make(self, stage: Stage, work: Work, log: Path, say: Say, stop: threading.Event, spend: Spend) -> Ran:
        """Have workers try until one succeeded, or it is clear that it will not."""
        lost = 0
        while True:
            watch = self._watch(self._open(work, stop), say)
            spend(watch.usage)
            outcome = self._wait([watch], stop)[0]
            _keep_log(log, watch.attempt, outcome)
            if outcome.state == "succeeded" and (ran := self._accept(stage, work, outcome, stop)):
                return ran
            if outcome.state in ("failed", "refused"):
                raise StageFailed(work.stage, outcome.why, log, retry=outcome.retry and outcome.state == "failed")
            if known := self._known(stage, work.key, stop):  # another run accepted it meanwhile
                return known
            lost += outcome.state != "given back"
            if lost == LOST_WORKERS:
                why = f"{lost} workers were lost over it, the last because: {outcome.why}"
                raise StageFailed(work.stage, why, log, retry=False)
            say(f"{outcome.state} ({outcome.why}): the next attempt goes on from its checkpoint", True)

    def _make_parts(self, work: Work, say: Say, stop: threading.Event, spend: Spend) -> None:
        """Let every idle worker make a part of the shards; what is missing afterwards, the whole stage makes."""
        idle = _idle(work.pool, self.ledger)
        if idle < 2:
            return
        parts = [ledger.part(work, number, idle) for number in range(1, idle + 1)]
        self._asked += parts
        for _ in range(LOST_WORKERS):
            watches = [self._watch(self._open(part, stop), _of_part(part, say)) for part in parts]
            for watch in watches:
                spend(watch.usage)
            ended = zip(parts, self._wait(watches, stop), strict=True)
            parts = [part for part, outcome in ended if outcome.state in ("vanished", "given back")]
            if not parts:
                break

    def _is_made(self, work: Work, stop: threading.Event) -> bool:
        """Whether there is an attempt that succeeded, which was not taken yet."""
        attempts = patiently(self.ledger.attempts, work, stop=stop)
        outcome = patiently(self.ledger.outcome, attempts[-1], stop=stop) if attempts else None
        return outcome is not None and outcome.state == "succeeded"

    def _open(self, work: Work, stop: threading.Event) -> Attempt:
        """The attempt at this work that is open or succeeded, whoever opened it; else a new one."""
        while True:
            attempts = patiently(self.ledger.attempts, work, stop=stop)
            if attempts:
                last = attempts[-1]
                outcome = patiently(self.ledger.outcome, last, stop=stop)
                if outcome is None or outcome.state == "succeeded":  # the latter, by a run that died before it took it
                    return last
            try:
                if made := patiently(self.ledger.open, work, stop=stop):
                    return made
            except NotThere:  # somebody forgets the same work in this moment
                stop.wait(POLL_SECONDS)

    def _watch(self, attempt: Attempt, say: Say) -> Watch:
        return Watch(self.ledger, attempt, self.job.settings.vanished, say, lambda: _is_served(attempt.work.pool))

    def _wait(self, watches: list[Watch], stop: threading.Event) -> list[Outcome]:
        """Wait until all attempts are closed."""
        while True:
            open_ones = [watch for watch in watches if watch.outcome is None and watch.poll() is None]
            if not open_ones:
                return [watch.outcome for watch in watches if watch.outcome]
            if stop.wait(POLL_SECONDS):
                for watch in open_ones:
                    with contextlib.suppress(UserError):  # then its worker works in vain
                        watch.stop("the run was stopped")
                raise Stopped

    # its result

    def _accept(self, stage: Stage, work: Work, outcome: Outcome, stop: threading.Event) -> Ran | None:
        """Take a worker's result into the run and, but for a reproduction, into the run cache; None if it is not what
        was asked for."""
        with self._lock:
            entry = self.job.store.as_written(stage, outcome.entry)
            store = self.job.store
            oids = [out.get("md5") for out in entry["outs"]]
            there = all(oid and patiently(store.accepted.holds, oid, stop=stop) for oid in oids)
            right = there and keys.of_entry(entry) == work.key
            if right:
                self.entries[stage.name] = entry
                if not work.proof:
                    store.accepted.add(work.key, entry)
        if not (right and work.proof):
            patiently(self.ledger.forget, work, stop=stop)
        return Ran("ran", outcome.host, outcome.resumed, outcome.environment) if right else None


def _of_part(part: Work, say: Say) -> Say:
    return lambda text, whole: say(f"part {part.part}: {text}", whole)


def _is_served(pool: str) -> bool:
    """Whether a worker serves the pool, as far as is known: a server that does not answer gives nobody up."""
    try:
        return any(worker.online for worker in pools.workers(pool))
    except UserError:
        return True


def _idle(pool: str, ledger: Ledger) -> int:
    """How many workers of the pool have nothing to do; 0 where that cannot be found out."""
    try:
        return sum(worker.idle for worker in pools.workers(pool, ledger.store))
    except UserError:
        return 0


def _keep_log(log: Path, attempt: Attempt, outcome: Outcome) -> None:
    """Keep what the stage printed beside the logs of stages that run here."""
    if outcome.log:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as sink:
            took = f"{outcome.state} after {outcome.seconds:.2f} s"
            sink.write(f"--- attempt {attempt.number} by {outcome.worker} on {outcome.host}: {took}\n")
            sink.write(outcome.log.rstrip("\n") + "\n")


def dispatcher(job: Job) -> Dispatcher:
    """The dispatcher of a job; UserError where ledger or remote are no places."""
    return Dispatcher(job, ledger.open(job.settings), bring.open_exchange(job.store, job.settings))
