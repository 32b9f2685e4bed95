"""The key of a stage execution: the digest of all that goes into it, by which the run cache and orders know it.

An entry is a stage's part of dvc.lock. DVC 3.67 has no call that asks for its key or writes one without the data in the
workspace: what is done as inside DVC for that is here, and nowhere else, by names that it does not call private.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]  # a stage's part of dvc.lock, or of a file in the run cache


def of_entry(entry: Entry) -> str:
    """The key of an execution: SHA-256 over command, parameters, the digests of deps and the paths of outs."""
    return value_of({**entry, "outs": [out["path"] for out in entry.get("outs", [])]})


def value_of(entry: Entry) -> str:
    """What the run cache calls an execution under its key: SHA-256 over the key's content and the digests of outs."""
    from dvc.utils import dict_sha256
    from dvc_data.hashfile.meta import Meta

    return str(dict_sha256(entry, exclude=[Meta.PARAM_SIZE, Meta.PARAM_NFILES]))


def entry_of(stage: Any, entry: Entry) -> dict[str, Any]:
    """An entry in the words and the order in which DVC writes the stage's: with the stage's command and parameters.

    stage: DVC's own, of the workspace's index. A result that came from another machine or run so becomes the one that
    a local run writes.
    """
    from dvc.stage.loader import StageLoader

    StageLoader.fill_from_lock(stage, {name: list(entry.get(name, [])) for name in ("deps", "outs")})
    return _written(stage)


def entry_before(stage: Any, deps: Sequence[str]) -> dict[str, Any]:
    """What a stage's entry says before it runs: the digests of its deps, in their order; those of outs mean nothing."""
    from dvc.dependency import ParamsDependency
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta

    items = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
    for dep, oid in zip(items, deps, strict=True):
        runs = Path(dep.fs_path).is_file() and os.access(dep.fs_path, os.X_OK)
        dep.hash_name = "md5"  # DVC takes a dep that dvc.lock does not know yet for one of DVC 2
        dep.hash_info, dep.meta = HashInfo("md5", oid), Meta(isexec=runs)
    return _written(stage)


def _written(stage: Any) -> dict[str, Any]:
    from dvc.dependency import ParamsDependency
    from dvc.stage.serialize import to_single_stage_lockfile

    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            dep.save()  # their values of now
    return dict(to_single_stage_lockfile(stage))
