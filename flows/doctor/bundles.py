"""Bundles that releases name: whole, or mended with what the run that made them left in DVC's cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from data.core.digests import sha256
from data.core.params import UserError
from flows.pipeline.families import models_of
from flows.release import bundle, recorded
from flows.release.bundle import File, Manifest
from flows.release.findings import Finding
from flows.release.pointers import READERS, Member, Pointer
from flows.release.stores import Stores


def check(stores: Stores, log: Sequence[Pointer], deep: bool) -> Iterator[Finding]:
    """What is gone or changed of the bundles that releases name; `deep` reads every byte, else sizes are compared."""
    members = sorted({member for pointer in log for member in pointer.members}, key=lambda one: one.tag)
    with ThreadPoolExecutor(READERS) as readers:
        for found in readers.map(partial(_check, stores, deep=deep), members):
            yield from found


def _check(stores: Stores, member: Member, deep: bool) -> list[Finding]:
    try:
        manifest = bundle.read(stores.bucket, member.model, member.bundle)
        wrong = list(bundle.damaged(stores.bucket, manifest, deep))
    except UserError as error:
        advice = "bring it back from a copy of the bucket"
        return [Finding("bucket", f"bundle of {member.tag}", f"not readable: {error}", "whole", None, advice)]
    advice = "published again from DVC's cache; else bring it back from a copy of the bucket, or: remint rollback"
    return [
        Finding(
            "bucket",
            f"{file.name} of {member.tag}",
            f"damaged: {words}",
            "whole",
            partial(mend, stores, manifest, file),
            advice,
        )
        for file, words in wrong
    ]


def mend(stores: Stores, manifest: Manifest, file: File) -> None:
    """Publish a file of a bundle again, from the run that made it; UserError unless just these bytes are there."""
    with recorded.opened(stores, recorded.find(stores, manifest.lineage.run)) as ran:
        model = next((one for one in models_of(ran.workspace) if one.name == manifest.model), None)
        if model is None:
            raise UserError(f"run {ran.id} has no model {manifest.model}")
        folder = model.path if file.name in bundle.TRAINED else model.evaluated
        path = ran.workspace / folder / file.name
        if not path.is_file() or sha256(path) != file.sha256:
            raise UserError(f"{folder / file.name} of run {ran.id} is not in DVC's cache here, or is damaged too")
        key = f"{bundle.prefix(manifest.model, bundle.digest(manifest))}/{file.name}"
        stores.bucket.delete(key)
        stores.bucket.upload(key, path, file.sha256)
