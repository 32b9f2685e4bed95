"""The Prefect flow of one stage, which a worker of any pool type starts in a process, a container or a pod of its own.

The entry point is this module, not its file: loading a flow by a file's path would put the file's folder first on
`sys.path`. What came of the order is written into the bucket; Prefect's state only shows it.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Completed, Crashed, Failed

from data.core.params import UserError
from flows import repository, settings
from flows.stage.process import Stopped
from flows.stage.progress_artifact import Bar
from flows.storage import protocol
from flows.storage.protocol import NotThere
from flows.storage.retry import retry
from flows.workers import attempt, orders
from flows.workers.orders import Ended

CLOSE_SECONDS = 600.0  # that the bucket may be away when a stage has ended


@flow(name="stage", persist_result=False, validate_parameters=False)
def stage(order: str = "") -> State[Any]:
    """Make one attempt at the order at this place of the bucket, in the clone REMINT_CLONE."""
    try:
        clone = os.environ.get("REMINT_CLONE", "")
        if not clone:
            raise UserError(
                "this worker was started outside of a clone, and has no REMINT_CLONE: start it in one, by remint worker"
            )
        chosen = settings.load(repository.find(Path(clone).resolve()).main)
        os.environ.update(settings.child_environment(chosen))
        book = orders.opened(chosen)
        wanted = _wanted(book, order)
        _no_variables()
    except UserError as error:
        return Failed(name="Rejected", message=str(error))
    if book.ended(wanted) is not None:
        return Completed(name="NotNeeded", message="somebody has said already what came of it")
    signal.signal(signal.SIGTERM, _leave)
    with _Words(wanted.order.stage) as words:
        ended = attempt.make(chosen, wanted.order, words)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        counted = retry(book.close, wanted, ended, seconds=CLOSE_SECONDS)
    return _state(ended, counted)


def _wanted(book: orders.Orders, place: str) -> orders.Attempt:
    """The attempt at a place; UserError for what is none."""
    protocol.check_key(place)
    try:
        found = retry(book.attempt, place)
    except NotThere:
        raise UserError(f"nobody wants '{place[:200]}' any more: its run has ended") from None
    if found.place != place:
        raise UserError(f"the attempt at '{place[:200]}' says that it is another; remove it from the bucket")
    if os.environ.get("REMINT_POOL", found.order.pool) != found.order.pool:
        raise UserError(
            f"the stage is for pool {found.order.pool}, this worker has {os.environ['REMINT_POOL']}; see remint deploy"
        )
    return found


def _no_variables() -> None:
    """Commands, variables and folders are the worker's own affair; UserError for a flow run that sets some."""
    with get_client(sync_client=True) as client:
        if given := client.read_flow_run(runtime.flow_run.id).job_variables:
            names = ", ".join(sorted(given))[:80]
            raise UserError(f"the flow run sets job variables ({names}), and stages let nobody set any")


def _leave(number: int, frame: Any) -> None:
    """Once: the stage is ended with a checkpoint, and what this process does then is not to be broken off."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


class _Words(Bar):
    """What the stage says: whole lines in Prefect's log, the last of all in its bar."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage, alive=True)
        self.log = get_run_logger()

    def __call__(self, text: str, whole: bool) -> None:
        self.says(text)
        if whole:
            self.log.info("%s", text)


def _state(ended: Ended, counted: bool) -> State[Any]:
    """How Prefect shows what came of an attempt."""
    if not counted:
        return Completed(name="NotCounted", message=f"{ended.state}, and nobody waits for it any more")
    if ended.state == "succeeded":
        return Completed(message=f"{ended.seconds:.1f} s{', from a checkpoint' if ended.resumed else ''}")
    if ended.state == "preempted":
        return Crashed(name="Preempted", message=ended.why)
    return Failed(name=ended.state.capitalize(), message=ended.why)
