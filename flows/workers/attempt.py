"""One attempt at a stage, from its order to what came of it: checked, prepared, run, uploaded, cleaned up.

    ended = attempt.make(settings, wanted, say)

The stage runs in a worktree of its own at the order's commit, with its inputs from the remote, as a local process
(`flows.stage.process`). Its outputs are in the remote, and its entry is in the run cache there, before anybody is told.
Nothing is left behind but what the machine's cache gained.

A stage of a reproduction is run whatever the run cache holds, is not tracked, and has checkpoints of its own: from them
goes on who has the same environment, so that one environment stands behind the result.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from data.core.params import UserError
from flows import settings
from flows.pipeline import accepted, environment, keys, parameters, workspace
from flows.pipeline.environment import Environment
from flows.pipeline.graph import Stage
from flows.pipeline.plan import overlap
from flows.pipeline.store import Store
from flows.settings import Settings
from flows.stage import process
from flows.stage.measure import Meter
from flows.stage.process import RESUMED, Say, StageFailed, Stopped
from flows.stage.spending import Usage
from flows.storage.retry import retry
from flows.workers import admission, cache
from flows.workers.admission import Rejected
from flows.workers.orders import Ended, Order, State

LOG_CHARACTERS = 20_000  # of a stage's words that its outcome keeps
ORIGIN_SECONDS = 120.0  # that git's origin may be away


def make(chosen: Settings, wanted: Order, say: Say) -> Ended:
    """Do it; whatever happens becomes an outcome. A signal that raises Stopped ends it with a checkpoint."""
    return _Attempt(chosen, wanted, say).make()


class _Attempt:
    """The work of one attempt."""

    def __init__(self, chosen: Settings, wanted: Order, say: Say) -> None:
        self.settings, self.order, self.say = chosen, wanted, say
        self.gpus = _gpus(wanted.pool)
        self.meter, self.began = Meter(gpus=self.gpus), time.monotonic()
        self.bytes_in = self.bytes_out = 0
        self.name = f"{re.sub(r'[^A-Za-z0-9_-]', '-', wanted.stage)}-{wanted.key[:8]}-{uuid.uuid4().hex[:8]}"
        self.log = workspace.index_folder(chosen.worktrees / self.name) / "stage.log"
        self.resumed = False
        self.environment = ""  # of the stage
        self.words = ""  # the last part of the log, which goes with the worktree

    def make(self) -> Ended:
        try:
            return self._ended("succeeded", entry=self._run())
        except Stopped:
            return self._ended("preempted", why=f"its worker on {socket.gethostname()} was asked to end")
        except Rejected as error:
            return self._ended("rejected", why=str(error), retry=False)
        except StageFailed as error:
            return self._failed(error.why, retry=error.retry)
        except UserError as error:
            return self._failed(str(error))
        except OSError as error:
            return self._failed(f"{error.filename or 'writing'}: {error.strerror}", log=traceback.format_exc())
        except Exception as error:  # a mistake in this program: not to be tried on every worker
            return self._failed(f"{type(error).__name__}: {error}", retry=False, log=traceback.format_exc())

    def _failed(self, why: str, retry: bool = True, **values: Any) -> Ended:
        if cache.is_full(self.settings, f"{why} {self.words}"):
            why = f"{why}; the disk of {socket.gethostname()} is full: free space there (remint gc)"
        return self._ended("failed", why=why, retry=retry, **values)

    def _run(self) -> dict[str, Any]:
        """The stage's entry of dvc.lock, {} for a part."""
        order, chosen = self.order, self.settings
        admission.order(order)
        self.say("fetching the commit", True)
        retry(admission.commit, chosen.root, order.commit, chosen.allowed, seconds=ORIGIN_SECONDS)
        with workspace.opened(chosen, order.commit, self.name) as root, self._log_kept(), self._store(root) as store:
            admission.stage(order, [stage.name for stage in store.stages])
            surroundings = environment.surroundings(self._surroundings(root), order.variables)
            here = environment.describe(root, surroundings)
            admission.environment(order, here)
            self.environment = environment.text(here)
            stage = next(stage for stage in store.stages if stage.name == order.stage)
            cache.make_room(chosen, store)
            with cache.in_use(chosen):
                self._prepare(stage, root, store)
            self._start(stage, root, surroundings | self._apart(here))
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the work is done: what is left is to hand it on
            return {} if order.part else self._upload(stage, root, store)

    def _store(self, root: Path) -> closing[Store]:
        return closing(Store(root, accepted.exchanged(self.settings)))

    def _prepare(self, stage: Stage, root: Path, store: Store) -> None:
        """Put the stage's inputs into the worktree, every byte read, as the order's part of dvc.lock says."""
        wanted = _inputs(stage, store, self.order.lock)
        workspace.replace_lock(root, self.order.lock)
        self.say("fetching inputs", True)
        for damage in store.cache.objects.damaged(wanted, deep=True):
            store.cache.objects.remove(damage)  # and fetched again
        self.bytes_in += retry(store.cache.fetch, wanted)
        if wanted:
            store.checkout(list(wanted))

    def _surroundings(self, root: Path) -> dict[str, str]:
        """The variables of every stage's process."""
        return settings.child_environment(self.settings) | {
            "REMINT_RUN": self.order.run,
            "DVC_SITE_CACHE_DIR": str(workspace.index_folder(root)),
        }

    def _apart(self, here: Environment) -> dict[str, str]:
        """The variables that keep a reproduction apart from the run that it is compared with; {} for a run."""
        if not self.order.proof:
            return {}
        folder = f"{self.settings.checkpoints.rstrip('/')}/{self.order.proof}/{here.digest[:16]}"
        return {"REMINT_CHECKPOINTS": folder, "MLFLOW_TRACKING_URI": ""}

    def _start(self, stage: Stage, root: Path, variables: Mapping[str, str]) -> None:
        """Run the stage: by DVC, or, for a part, by the stage's own command, because it writes no outputs."""
        order = self.order
        command = [*process.REPRO, "--no-run-cache", order.stage] if order.proof else []
        if order.part:
            command, variables = ["/bin/sh", "-e", "-c", stage.cmd], {**variables, "REMINT_PART": order.part}
        variables = {**variables, **parameters.source_of(root, stage.name)}
        self.say("started", True)
        never = threading.Event()  # a signal raises Stopped here
        process.run(order.stage, root, variables, self.log, self._heard, never, order.timeout, self.meter, command)

    def _heard(self, text: str, whole: bool) -> None:
        self.resumed = self.resumed or text.startswith(RESUMED)
        self.say(text, whole)

    def _upload(self, stage: Stage, root: Path, store: Store) -> dict[str, Any]:
        """Hand the outputs on, and remember the execution where every machine looks for it."""
        entry = workspace.read_entry(root, stage.name)
        found = keys.of_entry(entry)
        if found != self.order.key:
            raise Rejected(
                f"what the stage read here has key {found[:12]}, not {self.order.key[:12]}: an input of the run is "
                "not in its commit or not in the remote; commit it"
            )
        outs = {item["path"]: item["md5"] for item in entry.get("outs", ())}
        for path, oid in outs.items():
            if not store.cache.objects.path(oid).exists() and not store.accepted.holds(oid):
                raise Rejected(f"{path} is not in DVC's cache (cache: false?), so it cannot be handed on")
        self.say("uploading outputs", True)
        self.bytes_out += retry(store.cache.push, outs.values())
        if not self.order.proof:
            retry(store.accepted.add, found, entry)
        return entry

    @contextmanager
    def _log_kept(self) -> Iterator[None]:
        """The last part of the stage's words stays when its worktree goes."""
        try:
            yield
        finally:
            if self.log.exists():
                self.words = self.log.read_text(errors="replace")[-LOG_CHARACTERS:]

    def _ended(self, state: State, **values: Any) -> Ended:
        given: dict[str, Any] = {
            "log": self.words,
            "resumed": self.resumed,
            "seconds": self.meter.usage().seconds,
            "usage": self._usage(),
            "environment": self.environment,
        } | values
        return Ended(state, host=socket.gethostname(), **given)

    def _usage(self) -> Usage:
        """With fetching and pushing, during which nobody else has the GPUs either."""
        seconds = round(time.monotonic() - self.began, 3)
        moved = {"bytes_in": self.bytes_in, "bytes_out": self.bytes_out}
        return replace(self.meter.usage(), seconds=seconds, gpu_seconds=round(seconds * self.gpus, 3), **moved)


def _inputs(stage: Stage, store: Store, lock: Mapping[str, Any]) -> dict[str, str]:
    """Digest by path of every output of other stages, and of data that `dvc add` tracks, that the stage reads.

    lock: the entries of dvc.lock of the stages before it. Of their paths only those count that dvc.yaml names.
    """
    recorded = {item["path"]: item["md5"] for entry in lock.values() for item in entry.get("outs", ())}
    recorded |= store.tracked
    outs = [*(out for other in store.stages for out in other.outs), *store.tracked]
    wanted = [out for out in outs if any(overlap(out, dep) for dep in stage.deps)]
    for out in wanted:
        if out not in recorded:
            raise Rejected(f"the order does not say what {out} is, which the stage reads")
    return {out: recorded[out] for out in wanted}


def _gpus(pool: str) -> int:
    """How many GPUs a stage of the pool holds here: those that its worker was given."""
    if pool != "gpu":
        return 0
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name not in ("", "-1")]
    return len(given) or (1 if environment.gpu() else 0)
