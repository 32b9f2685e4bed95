"""Objects of DVC's cache that are not what their names say: named by what they are of, taken out, brought again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from data.core.params import UserError
from flows import repository
from flows.pipeline import accepted, workspace
from flows.pipeline.integrity import Objects
from flows.pipeline.lock import lock_in
from flows.pipeline.store import Store
from flows.release import tags
from flows.release.findings import Finding
from flows.release.stores import Stores
from flows.runs.values import run_tag
from flows.settings import Settings

LOOKED_AT = 20  # newest runs in whose dvc.lock is looked for what an object is of


def check(stores: Stores, deep: bool) -> Iterator[Finding]:
    """Damaged objects: those that changed since they were read; with `deep` every object is read."""
    settings = stores.settings
    objects = Objects(workspace.cache(settings))
    found = objects.contents(objects.every(), deep, unread=False)
    damaged = {oid: md5 for oid, md5 in found.items() if md5 != oid.removesuffix(".dir")}
    names = _names(settings, objects, set(damaged)) if damaged else {}
    for oid, md5 in damaged.items():
        file, run = names.get(oid, (oid, "an older run"))
        says = f"damaged in {objects.path(oid)}: md5 {md5}"
        advice = f"of {run}; taken out and brought from the remote, or made again when it is needed: remint retrain"
        yield Finding(
            "cache", file, says, f"md5 {oid.removesuffix('.dir')}", partial(_mend, settings, oid, file), advice
        )


def _names(settings: Settings, objects: Objects, wanted: set[str]) -> dict[str, tuple[str, str]]:
    """Of each object the file it is of, and the newest run that has it."""
    names: dict[str, tuple[str, str]] = {}
    runs = sorted((tag for tag in tags.read(settings.root) if tag.startswith(run_tag(""))), reverse=True)
    for run in runs[:LOOKED_AT]:
        for entry in lock_in((repository.file_at(settings.root, run, "dvc.lock") or "").encode()).values():
            for out in entry.get("outs", []):
                for file, oid in _files(objects, out, wanted).items():
                    names.setdefault(oid, (file, run))
        if wanted <= names.keys():
            break
    return names


def _files(objects: Objects, out: Mapping[str, Any], damaged: set[str]) -> dict[str, str]:
    """An output and its files with their objects; of a folder whose list is damaged, itself alone."""
    path, oid = str(out["path"]), str(out.get("md5"))
    inner = {} if oid in damaged else objects.members(oid)
    return {path: oid} | {f"{path}/{name}": md5 for name, md5 in inner.items()}


def _mend(settings: Settings, oid: str, what: str) -> None:
    """Take a damaged object out of the cache, and bring it again where a remote has it."""
    Objects(workspace.cache(settings)).path(oid).unlink(missing_ok=True)
    with contextlib.suppress(UserError):  # no remote has it: the stage that makes it will run again
        store = Store(settings.root, accepted.remote(settings))
        try:
            store.fetch({what: oid})
        finally:
            store.close()
