"""What a stage reads, put into a worktree on a machine that has not run the stages before it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.core.params import UserError
from flows.pipeline.graph import Stage
from flows.pipeline.plan import overlap
from flows.pipeline.store import Store
from flows.remote.exchange import Exchange, Moved
from flows.remote.refuse import Refused
from flows.storage.protocol import NotThere

LOCK = "dvc.lock"


def of(stage: Stage, root: Path, store: Store, lock: Mapping[str, Any]) -> dict[str, str]:
    """Digest by path of every output of other stages, and of data that `dvc add` tracks, that the stage reads.

    lock: the entries of dvc.lock of the stages before it. Of their paths only those count that dvc.yaml names.
    """
    recorded = {item["path"]: item["md5"] for entry in lock.values() for item in entry.get("outs", ())}
    recorded |= store.tracked
    outs = [*(out for other in store.stages for out in other.outs), *store.tracked]
    wanted = [out for out in outs if any(overlap(out, dep) for dep in stage.deps)]
    for out in wanted:
        if out not in recorded:
            raise Refused(f"the attempt does not say what {out} is, which the stage reads")
    return {out: recorded[out] for out in wanted}


def bring(wanted: Mapping[str, str], store: Store, place: Exchange, stop: threading.Event) -> Moved:
    """Have the inputs in the cache and, linked from there, in the worktree; UserError names what nobody has."""
    for damage in store.objects.damaged(wanted, deep=True):
        store.objects.remove(damage)  # and fetched again
    try:
        with place.fetched(wanted.values(), stop) as moved:
            if wanted:
                store.checkout(list(wanted))
            return moved
    except NotThere as error:
        raise UserError(f"{error}, which the stage reads; run the stage that makes it again") from None


def write_lock(root: Path, entries: Mapping[str, Any]) -> None:
    """Let dvc.lock hold exactly these entries: the stage itself is always to run."""
    from dvc.utils.serialize import dump_yaml

    dump_yaml(str(root / LOCK), {"schema": "2.0", "stages": _plain(entries)})


def entry(root: Path, stage: str) -> dict[str, Any]:
    """The stage's entry of dvc.lock."""
    from dvc.utils.serialize import load_yaml

    found: dict[str, Any] = _plain(load_yaml(str(root / LOCK))["stages"][stage])
    return found


def _plain(values: Any) -> Any:
    """YAML's and JSON's containers as plain ones, which both can write."""
    if isinstance(values, Mapping):
        return {str(name): _plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return values
