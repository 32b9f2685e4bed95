"""Where the bytes of the original run still lie: DVC's cache, a DVC remote, or the bundle of a release."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.params import UserError
from flows.graph import Stage
from flows.plan import overlap
from flows.reproduce.target import Target
from flows.settings import Settings
from flows.store import Store


def put_inputs(store: Store, stages: Sequence[Stage], target: Target) -> None:
    """Put what the stages read, as the original run had it, into the worktree; UserError if it is nowhere.

    To be called while the worktree still has the main cache and its commit's dvc.lock.
    """
    wanted = {
        out: before
        for stage in stages
        for before in store.stages
        for out in before.outs
        if before.name != stage.name and any(overlap(dep, out) for dep in stage.deps)
    }
    for out, maker in wanted.items():
        entry = store.recorded(maker)
        oid = entry.outs.get(out) if entry else None
        if oid is None:
            raise UserError(f"the dvc.lock of {target.tag} does not record {out}; use --from scratch")
        if not store.stored({out: oid}):
            _fetch(store, oid, out)
    store.checkout(list(wanted))


def find(store: Store, oid: str) -> dict[str, Path]:
    """The files of a recorded output by their names in it ("" for an output that is a file); {} if none is reached."""
    try:
        if not store.stored({"": oid}):
            _fetch(store, oid, "")
    except UserError:
        return {}
    return store.files(oid)


def weights_of_release(settings: Settings, target: Target, into: Path) -> Path | None:
    """The weights that were released, brought from the bucket; None where that cannot be done."""
    from flows.production import bucket, bundle

    if not target.bundle:
        return None
    try:
        bundle.fetch(bucket.open(settings), target.model.name, target.bundle, into, only=("model.safetensors",))
    except UserError:
        return None
    return into / "model.safetensors"


def _fetch(store: Store, oid: str, what: str) -> None:
    """Bring an output from the DVC remote into the cache; UserError says why not."""
    from dvc.exceptions import DvcException
    from dvc_data.hashfile.hash_info import HashInfo

    repo: Any = store.repo
    try:
        remote = repo.cloud.get_remote_odb(command="fetch", hash_name="md5")
        done = repo.cloud.transfer(remote, repo.cache.local, [HashInfo("md5", oid)], shallow=False)
    except (DvcException, OSError, FileNotFoundError) as error:
        raise UserError(
            f"{what} is not in the cache and cannot be fetched: {_words(error)}; use --from scratch"
        ) from None
    if done.failed or not store.stored({what: oid}):
        raise UserError(f"{what} is neither in the cache nor in DVC's remote; dvc fetch, or use --from scratch")


def _words(error: Exception) -> str:
    return " ".join(str(error).split()).partition(". ")[0]
