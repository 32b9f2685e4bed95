"""Where the bytes of the original run still lie: DVC's cache, a DVC remote, or the bundle of a release.

Where workers run the stages the remote is REMINT_REMOTE, and of an output only the files that are compared are brought.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data.core.params import UserError
from flows.pipeline import outputs
from flows.pipeline.graph import Stage
from flows.pipeline.integrity import MEND
from flows.pipeline.keys import Entry
from flows.pipeline.plan import overlap
from flows.pipeline.store import Store
from flows.reproduce.target import Target
from flows.settings import Settings

COMPARED = (".safetensors", ".json")
ORIGINALS = ".originals"  # in a reproduction's worktree


def put_inputs(store: Store, stages: Sequence[Stage], target: Target) -> None:
    """Put what the stages read, as the original run had it, into the worktree; UserError if it is nowhere.

    To be called while the worktree still has the main cache and its commit's dvc.lock.
    """
    wanted = _read(store, stages)
    for out, maker in wanted.items():
        oid = _recorded(store, maker, out, target)
        if not store.stored({out: oid}):
            _fetch(store, oid, out)
        if damaged := store.cache.objects.damaged({out: oid}, deep=True):
            raise UserError(f"{damaged[0]}; {MEND}, or use --from scratch")
    store.checkout(list(wanted))


def given(store: Store, stages: Sequence[Stage], target: Target) -> dict[str, Entry]:
    """The entries of dvc.lock that say what the stages read, for workers; UserError if it is nowhere.

    To be called while the worktree still has its commit's dvc.lock.
    """
    found: dict[str, Entry] = {}
    for out, maker in _read(store, stages).items():
        if not store.stored({out: _recorded(store, maker, out, target)}):
            raise UserError(f"{out} is neither in the cache nor in the remote; use --from scratch")
        found[maker.name] = store.entry(maker) or {}
    return found


def find(store: Store, oid: str) -> dict[str, Path]:
    """The files of a recorded output by their names in it ("" for an output that is a file); {} if none is reached."""
    return store.cache.brought(oid) if store.remote is None else _compared(store, oid)


def weights_of_release(settings: Settings, target: Target, into: Path) -> Path | None:
    """The weights that were released, brought from the bucket; None where that cannot be done."""
    from flows.release import bundle
    from flows.storage import bucket

    if not target.bundle:
        return None
    try:
        bundle.fetch(
            bucket.at(settings.production), target.model.name, target.bundle, into, only=("model.safetensors",)
        )
    except UserError:
        return None
    return into / "model.safetensors"


def _read(store: Store, stages: Sequence[Stage]) -> dict[str, Stage]:
    """The outputs of other stages that these read, and who makes them."""
    return {
        out: before
        for stage in stages
        for before in store.stages
        for out in before.outs
        if before.name != stage.name and any(overlap(dep, out) for dep in stage.deps)
    }


def _recorded(store: Store, maker: Stage, out: str, target: Target) -> str:
    entry = store.recorded(maker)
    oid = entry.outs.get(out) if entry else None
    if oid is None:
        raise UserError(f"the dvc.lock of {target.tag} does not record {out}; use --from scratch")
    return oid


def _compared(store: Store, oid: str) -> dict[str, Path]:
    """The weights and metrics of an output, brought from the remote as far as the cache lacks them."""
    folder = store.root / ORIGINALS / oid
    try:
        members = {name: one for name, one in store.cache.members(oid).items() if not name or name.endswith(COMPARED)}
        found = {name: folder / (name or "file") for name in members}
        store.cache.fetch(members)
        for name, path in found.items():  # linked, they stay when the cache gives way
            outputs.put(store.cache.objects.path(members[name]), path)
    except (UserError, OSError):
        return {}
    return found


def _fetch(store: Store, oid: str, what: str) -> None:
    """Bring an output from the DVC remote into the cache; UserError says why not."""
    try:
        store.cache.fetch({what: oid})
    except UserError as error:
        raise UserError(f"{error}; use --from scratch") from None
