"""The Prefect flow of one stage, for workers that start a process or a pod for each run, as Kubernetes pools do.

`remint worker` does the same from its warm process, without loading this. The entry point is this module, not its
file: loading a flow by a file's path would put the file's folder first on `sys.path`.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed

from data.core.params import UserError
from flows import repository, settings
from flows.remote import device, execute, ledger
from flows.remote.execute import Ended, Host
from flows.remote.ledger import Outcome


def state(ended: Ended) -> State[Any]:
    """How Prefect shows what came of an attempt."""
    outcome = ended.outcome
    if not ended.counted:
        return Cancelled(name="NotCounted", message=f"closed elsewhere as '{outcome.state}' {outcome.why}".strip())
    if outcome.state == "succeeded":
        return Completed(message=f"{outcome.seconds:.1f} s{', from a checkpoint' if outcome.resumed else ''}")
    if outcome.state == "given back":
        return Crashed(name="GivenBack", message=outcome.why)
    return Failed(name=outcome.state.capitalize(), message=outcome.why)


@flow(name="stage", persist_result=False, validate_parameters=False)
def stage(place: str) -> State[Any]:
    """Make one attempt; the repository is the current folder, or REMINT_CLONE; REMINT_DEVICES as `--devices`."""
    checkout = repository.find(Path(os.environ.get("REMINT_CLONE", ".")).resolve())
    chosen = settings.load(checkout.main)
    os.environ.update(settings.child_environment(chosen))
    leave = threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda number, frame: leave.set())
    book = ledger.open(chosen)
    wanted = book.attempt(place)
    name = f"{socket.gethostname()}-{str(runtime.flow_run.id)[-12:]}"
    try:
        devices = device.chosen(os.environ.get("REMINT_DEVICES", ""), wanted.work.pool)
    except UserError as error:
        refused = Outcome("refused", name, socket.gethostname(), str(error), retry=False)
        return state(Ended(refused, book.close(wanted, refused)))
    log = get_run_logger()
    host = Host(chosen, name, wanted.work.pool, devices)
    return state(execute.attempt(host, place, leave, lambda text, whole: log.info("%s", text) if whole else None))
