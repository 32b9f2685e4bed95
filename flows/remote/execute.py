"""One attempt at a stage, from the ledger's entry to its outcome: checked, prepared, run, uploaded, cleaned up.

    ended = execute.attempt(host, place, leave, hear)

The stage runs in a worktree of its own at the attempt's commit, with its inputs from the remote, as a local process
(`flows.stage.process`). Its outputs are in the remote, verified, before the attempt is closed; whether they count is
decided by who closes first. Nothing is left behind but what the machine's cache gained, and that goes when it is not
used for long (`flows.remote.evict`); if the disk is full, it goes at once, and the stage is run again.

A stage of a reproduction is run whatever the run cache holds, is not tracked, and has checkpoints of its own: from them
goes on who has the same environment, so that one environment stands behind the result.
"""

from __future__ import annotations

import re
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data.core import checkpoint_store
from data.core.params import UserError
from flows import settings
from flows.pipeline import environment, keys, workspace
from flows.pipeline.environment import Environment
from flows.pipeline.graph import Stage
from flows.pipeline.store import Store
from flows.remote import device, evict, exchange, inputs, ledger, refuse, space
from flows.remote.device import Devices
from flows.remote.exchange import Exchange
from flows.remote.ledger import Attempt, Ledger, Outcome, Usage
from flows.remote.patience import patiently
from flows.remote.pulse import Pulse
from flows.remote.refuse import Refused
from flows.settings import Settings
from flows.stage import process
from flows.stage.measure import Meter
from flows.stage.process import StageFailed, Stopped
from flows.storage import protocol
from flows.storage.protocol import NotThere

BEATS = 6  # signs of life within REMINT_VANISHED
LOG_CHARACTERS = 20_000  # of a stage's words that its outcome keeps
CLOSE_SECONDS = 600.0  # that a ledger may be away when a stage has ended
ORIGIN_SECONDS = 120.0  # that git's origin may be away
RESUMED = "going on from step "  # models.core.checkpoint.resume says so
PART = re.compile(r"[1-9]\d{0,3}/[1-9]\d{0,3}")
VALUE = re.compile(r"[\w.,:+=-]{1,100}")  # of a variable that the attempt names

Hear = Callable[[str, bool], None]  # what the stage says, and whether it is a whole line


@dataclass(frozen=True)
class Host:
    """Who makes the attempt."""

    settings: Settings
    name: str  # of the worker
    pool: str
    devices: Devices = field(default_factory=Devices)


@dataclass(frozen=True)
class Ended:
    """What came of an attempt, and whether it counts."""

    outcome: Outcome
    counted: bool


@dataclass
class _Costs:
    """What an attempt has used up to now."""

    meter: Meter
    began: float = field(default_factory=time.monotonic)
    held: float | None = None  # since when the devices are
    bytes_in: int = 0
    bytes_out: int = 0

    def usage(self, gpus: int) -> Usage:
        now = time.monotonic()
        return replace(
            self.meter.usage(),
            seconds=round(now - self.began, 3),
            gpu_seconds=round(gpus * (now - self.held), 3) if self.held is not None else 0.0,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
        )


def attempt(host: Host, place: str, leave: threading.Event, hear: Hear) -> Ended:
    """Make the attempt at this place of the ledger, unless it is closed or somebody has begun it.

    leave: the worker is to end; the stage gets time for a checkpoint, and the attempt is given back.
    """
    book = ledger.open(host.settings)
    try:
        protocol.check_key(place)
    except UserError as error:
        return Ended(_refused(host, str(error)), False)
    try:
        wanted = patiently(lambda: book.attempt(place), stop=leave)
    except (NotThere, ValueError, TypeError, KeyError):
        return Ended(_refused(host, f"the ledger has no attempt '{place[:200]}' that this version can read"), False)
    if wanted.place != place:
        return Ended(_refused(host, f"the attempt at '{place[:200]}' says that it is another"), False)
    before = patiently(lambda: book.outcome(wanted), stop=leave)
    if before is not None:
        return Ended(before, False)
    if (other := patiently(lambda: book.last_beat(wanted), stop=leave)) is not None:
        return Ended(_refused(host, f"{other.worker} has begun it"), False)
    with Pulse(book, wanted, host.name, host.settings.vanished / BEATS, leave) as pulse:
        outcome = _Try(host, wanted, pulse, hear).outcome()
        if pulse.closed is not None:
            ended = Ended(pulse.closed, False)
        else:
            pulse.say(f"{outcome.state}: telling the ledger")
            ended = _close(book, wanted, outcome, leave)
    evict.tidy(host.settings, host.name, leave)  # now that nobody waits for it
    return ended


def _close(book: Ledger, wanted: Attempt, outcome: Outcome, leave: threading.Event) -> Ended:
    """The fence: who closes first decides what came of the attempt."""
    if patiently(book.close, wanted, outcome, seconds=CLOSE_SECONDS, stop=leave):
        return Ended(outcome, True)
    there = book.outcome(wanted)
    return Ended(there or outcome, there == outcome)  # ours, if only the answer was lost


class _Try:
    """The work of one attempt."""

    def __init__(self, host: Host, wanted: Attempt, pulse: Pulse, hear: Hear) -> None:
        self.host, self.work, self.pulse, self.hear = host, wanted.work, pulse, hear
        self.settings, self.stop = host.settings, pulse.stop
        self.costs = _Costs(Meter(gpus=len(host.devices.gpus)))
        self.name = f"{re.sub(r'[^A-Za-z0-9_-]', '-', self.work.stage)}-{self.work.key[:8]}-{uuid.uuid4().hex[:8]}"
        self.log = workspace.index_folder(self.settings.worktrees / self.name) / "stage.log"
        self.resumed = False
        self.environment = ""  # of the stage
        self.words = ""  # the last part of the log, which goes with the worktree
        self.full = False  # the disk was

    def outcome(self) -> Outcome:
        """Do it, and once more if the disk was full of what can be had again; whatever happens becomes an outcome."""
        outcome = self._outcome_of_one()
        if self.full and self._make_room():
            outcome = self._outcome_of_one()
        return outcome

    def _outcome_of_one(self) -> Outcome:
        self.words, self.full = "", False
        try:
            entry = self._run()
            return self._outcome("succeeded", entry=entry)
        except Stopped:
            return self._outcome("given back", why=f"worker {self.host.name} was asked to end")
        except Refused as error:
            return self._outcome("refused", why=str(error), retry=False)
        except StageFailed as error:
            return self._failed(error, error.why, retry=error.retry)
        except UserError as error:
            return self._failed(error, str(error))
        except OSError as error:
            return self._failed(error, f"{error.filename or 'writing'}: {error.strerror}", log=traceback.format_exc())
        except Exception as error:  # a mistake in this program must not leave an attempt open
            return self._failed(error, f"{type(error).__name__}: {error}", log=traceback.format_exc())

    def _failed(self, error: Exception, why: str, retry: bool = True, **values: Any) -> Outcome:
        if self.stop.is_set() and retry:  # impatience with a store that is away, or a stage that was ended
            return self._outcome("given back", why=f"worker {self.host.name} was asked to end: {why}")
        self.full = retry and space.is_full(self.settings, error, self.words)
        if self.full:
            why = f"{why}; the disk of {socket.gethostname()} is full: free space there (remint gc)"
        return self._outcome("failed", why=why, retry=retry, **values)

    def _run(self) -> dict[str, Any]:
        """The stage's entry of dvc.lock, {} for a part."""
        work, chosen = self.work, self.settings
        self._check()
        self._say("fetching the commit")
        patiently(refuse.commit, chosen.root, work.commit, chosen.allowed, seconds=ORIGIN_SECONDS, stop=self.stop)
        with device.held(self.host.devices, self.stop, self._say) as variables:
            if self.host.devices.gpus and self.costs.held is None:
                self.costs.held = time.monotonic()
            with workspace.opened(chosen, work.commit, self.name) as root, self._log_kept(), _opened(root) as store:
                refuse.stage(work, [stage.name for stage in store.stages])
                surroundings = environment.surroundings({**self._surroundings(root), **variables}, work.variables)
                here = environment.describe(root, surroundings)
                refuse.environment(work, here)
                self.environment = environment.text(here)
                stage = next(stage for stage in store.stages if stage.name == work.stage)
                place = exchange.open(chosen, workspace.cache(chosen))
                self._prepare(stage, root, store, place)
                with self._ahead(place), _run_cache_kept(store, work.key):
                    self._start(stage, root, surroundings | self._apart(here))
                return {} if work.part else self._upload(root, store, place)

    def _check(self) -> None:
        """What can be known before anything is fetched."""
        work, host = self.work, self.host
        if work.pool != host.pool:
            raise Refused(f"the stage is for pool {work.pool}, and worker {host.name} serves {host.pool}")
        if work.part and not PART.fullmatch(work.part):
            raise Refused(f"'{work.part[:20]}' is not a part, as 2/4 is one")
        if work.proof and not checkpoint_store.PLACE.fullmatch(work.proof):
            raise Refused(f"'{work.proof[:80]}' is not the name of a reproduction")
        for name, value in (work.variables or {}).items():
            if name not in environment.VARIABLES or not VALUE.fullmatch(value):
                raise Refused(f"variable '{name[:80]}' is not to be set, or not to this value")

    def _prepare(self, stage: Stage, root: Path, store: Store, place: Exchange) -> None:
        """Put the stage's inputs into the worktree, as the attempt's part of dvc.lock says."""
        wanted = inputs.of(stage, root, store, self.work.lock)
        inputs.write_lock(root, self.work.lock)
        self._say("fetching inputs")
        moved = inputs.bring(wanted, store, place, self.stop)
        self.costs.bytes_in += moved.bytes
        if words := str(space.spare(place, self.stop)):
            self._say(words)

    def _surroundings(self, root: Path) -> dict[str, str]:
        """The variables of every stage's process."""
        return settings.child_environment(self.settings) | {
            "REMINT_RUN": self.work.run,
            "DVC_SITE_CACHE_DIR": str(workspace.index_folder(root)),
        }

    def _apart(self, here: Environment) -> dict[str, str]:
        """The variables that keep a reproduction apart from the run that it is compared with; {} for a run."""
        if not self.work.proof:
            return {}
        place = f"{self.settings.checkpoints.rstrip('/')}/{self.work.proof}/{here.digest[:16]}"
        return {"REMINT_CHECKPOINTS": place, "MLFLOW_TRACKING_URI": ""}

    def _start(self, stage: Stage, root: Path, variables: Mapping[str, str]) -> None:
        """Run the stage: by DVC, or, for a part, by the stage's own command, because it writes no outputs."""
        work = self.work
        command = [*process.REPRO, "--no-run-cache", work.stage] if work.proof else []
        if work.part:
            command, variables = ["/bin/sh", "-e", "-c", stage.cmd], {**variables, "REMINT_PART": work.part}
        self._say("started")
        process.run(
            work.stage, root, variables, self.log, self._heard, self.stop, work.timeout, self.costs.meter, command
        )

    def _heard(self, text: str, whole: bool) -> None:
        self.resumed = self.resumed or text.startswith(RESUMED)
        self.pulse.say(text)
        self.hear(text, whole)

    def _say(self, text: str) -> None:
        self.pulse.say(text)
        self.hear(text, True)
        if self.stop.is_set():
            raise Stopped

    def _upload(self, root: Path, store: Store, place: Exchange) -> dict[str, Any]:
        entry = inputs.entry(root, self.work.stage)
        found = keys.of_entry(entry)
        if found != self.work.key:
            raise Refused(
                f"what the stage read here has key {found[:12]}, not {self.work.key[:12]}: an input of the run is "
                "not in its commit or not in the remote; commit it"
            )
        oids = [item["md5"] for item in entry.get("outs", ())]
        for item in entry.get("outs", ()):
            if not place.path(item["md5"]).exists() and place.missing([item["md5"]], self.pulse.lost):
                raise Refused(f"{item['path']} is not in DVC's cache (cache: false?), so it cannot be handed on")
        self.pulse.say("uploading outputs")  # also when the worker is to leave: the work is done
        self.costs.bytes_out += place.push(oids, self.pulse.lost).bytes
        return entry

    @contextmanager
    def _ahead(self, place: Exchange) -> Iterator[None]:
        """Fetch what stages behind this one will read while it works; what cannot be had is no loss."""
        ended = threading.Event()

        def fetch() -> None:
            for oid in self.work.soon:
                with suppress(UserError, OSError, Stopped, ValueError):
                    if place.free() < space.SPARE:
                        return
                    moved = place.fetch([oid], ended)
                    self.costs.bytes_in += moved.bytes

        thread = threading.Thread(target=fetch, name="prefetch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def _log_kept(self) -> Iterator[None]:
        """The last part of the stage's words stays when its worktree goes."""
        try:
            yield
        finally:
            if self.log.exists():
                self.words = self.log.read_text(errors="replace")[-LOG_CHARACTERS:]

    def _make_room(self) -> bool:
        """Whether the cache gave way, so that another try is worth it."""
        evicted, worth = space.make(self.settings, self.stop)
        if words := str(evicted):
            self.pulse.say(words)
            self.hear(words, True)
        return worth

    def _outcome(self, state: ledger.State, **values: Any) -> Outcome:
        usage = self.costs.usage(len(self.host.devices.gpus))
        seconds = self.costs.meter.usage().seconds
        given: dict[str, Any] = {
            "log": self.words,
            "resumed": self.resumed,
            "seconds": seconds,
            "usage": usage,
            "environment": self.environment,
        } | values
        return Outcome(state, worker=self.host.name, host=socket.gethostname(), **given)


@contextmanager
def _opened(root: Path) -> Iterator[Store]:
    store = Store(root)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _run_cache_kept(store: Store, wanted: str) -> Iterator[None]:
    """Take out what DVC adds to the machine's run cache under a key: that gets only what a run has accepted."""
    folder = Path(store.repo.stage_cache.cache_dir) / wanted[:2] / wanted
    before = set(folder.iterdir()) if folder.is_dir() else set()
    try:
        yield
    finally:
        for path in set(folder.iterdir()) - before if folder.is_dir() else ():
            path.unlink(missing_ok=True)
        with suppress(OSError):  # an empty folder would break DVC's own look-up
            folder.rmdir()
            folder.parent.rmdir()


def _refused(host: Host, why: str) -> Outcome:
    return Outcome("refused", host.name, socket.gethostname(), why, retry=False)
