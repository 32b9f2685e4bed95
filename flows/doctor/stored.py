"""Damage to stored bytes, found and mended: bundles that releases name, and objects of DVC's cache.

A bundle's file is published again from what the run that made it left in DVC's cache; an object is named by what it is
of, taken out, and brought again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

from data.core.digests import sha256
from data.core.params import UserError
from flows import repository
from flows.pipeline import accepted, workspace
from flows.pipeline.families import models_of
from flows.pipeline.integrity import Objects
from flows.pipeline.lock import lock_in
from flows.pipeline.run import run_tag
from flows.pipeline.store import Store
from flows.release import bundle, recorded, tags
from flows.release.bundle import File, Manifest
from flows.release.pointers import READERS, Member, Pointer
from flows.release.stores import Finding, Stores
from flows.settings import Settings

LOOKED_AT = 20  # newest runs in whose dvc.lock is looked for what an object is of


def bundles(stores: Stores, log: Sequence[Pointer], deep: bool) -> Iterator[Finding]:
    """What is gone or changed of the bundles that releases name; `deep` reads every byte, else sizes are compared."""
    members = sorted({member for pointer in log for member in pointer.members}, key=lambda one: one.tag)
    with ThreadPoolExecutor(READERS) as readers:
        for found in readers.map(partial(_bundle, stores, deep=deep), members):
            yield from found


def _bundle(stores: Stores, member: Member, deep: bool) -> list[Finding]:
    try:
        manifest = bundle.read(stores.bucket, member.model, member.bundle)
        wrong = list(bundle.damaged(stores.bucket, manifest, deep))
    except UserError as error:
        advice = "bring it back from a copy of the bucket"
        return [Finding("bucket", f"bundle of {member.tag}", f"not readable: {error}", "whole", None, advice)]
    advice = "published again from DVC's cache; else bring it back from a copy of the bucket, or: remint rollback"
    found = []
    for file, words in wrong:
        repair = partial(mend, stores, manifest, file)
        found.append(Finding("bucket", f"{file.name} of {member.tag}", f"damaged: {words}", "whole", repair, advice))
    return found


def mend(stores: Stores, manifest: Manifest, file: File) -> None:
    """Publish a file of a bundle again, from the run that made it; UserError unless just these bytes are there."""
    with recorded.opened(stores, recorded.find(stores, manifest.lineage.run)) as ran:
        model = next((one for one in models_of(ran.workspace) if one.name == manifest.model), None)
        if model is None:
            raise UserError(
                f"run {ran.id} has no model {manifest.model}; bring its bundle back from a copy of the bucket"
            )
        folder = model.path if file.name in bundle.TRAINED else model.evaluated
        path = ran.workspace / folder / file.name
        if not path.is_file() or sha256(path) != file.sha256:
            raise UserError(
                f"{folder / file.name} of run {ran.id} is not in DVC's cache here, or damaged; dvc fetch, then again"
            )
        key = f"{bundle.prefix(manifest.model, bundle.digest(manifest))}/{file.name}"
        stores.bucket.delete(key)
        stores.bucket.upload(key, path, file.sha256)


def cached(stores: Stores, deep: bool) -> Iterator[Finding]:
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
        repair = partial(_bring_again, settings, oid, file)
        yield Finding("cache", file, says, f"md5 {oid.removesuffix('.dir')}", repair, advice)


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


def _bring_again(settings: Settings, oid: str, what: str) -> None:
    """Take a damaged object out of the cache, and bring it again where a remote has it."""
    Objects(workspace.cache(settings)).path(oid).unlink(missing_ok=True)
    with closing(Store(settings.root, accepted.remote(settings))) as store, contextlib.suppress(UserError):
        store.cache.fetch({what: oid})  # where no remote has it, the stage that makes it will run again
