"""What DVC knows about a workspace: its lock file, its cache and its run cache, as a plan asks for them."""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.core import digests
from data.core.params import UserError
from flows.pipeline import graph, keys
from flows.pipeline.accepted import Accepted
from flows.pipeline.cache import REMOTE, Cache
from flows.pipeline.graph import Stage
from flows.pipeline.integrity import Damage
from flows.pipeline.keys import Entry
from flows.pipeline.plan import Plan, Recorded, overlap

if TYPE_CHECKING:
    from flows.storage.protocol import Bucket


class Store:
    """One DVC workspace, opened for reading; the `World` of `flows.pipeline.plan`.

    With a remote, an output is stored that is in the local cache or there, and executions are remembered from both.
    """

    def __init__(self, root: Path, remote: "Bucket | None" = None) -> None:
        for library in ("dvc", "dvc_data", "dvc_objects"):
            logging.getLogger(library).setLevel(logging.ERROR)  # it warns of outputs that are not there yet
        self.root, self.remote = root, remote
        self._open()
        self._remembered: dict[str, Entry] = {}  # by stage, what a plan was told

    def _open(self) -> None:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            self.repo = Repo(str(self.root), config=self._config())
        except DvcException as error:
            raise UserError(f"DVC cannot open {self.root}: {error}; see .dvc/config and dvc doctor") from None
        self.accepted = Accepted(Path(self.repo.stage_cache.cache_dir), self.remote)
        for name in ("_lock", "_dvc_stages"):
            self.__dict__.pop(name, None)
        self.cache = Cache(self.repo, self.accepted, REMOTE if self.remote else None)

    def _config(self) -> dict[str, Any]:
        """What DVC is told beside the workspace's own configuration: where machines exchange outputs."""
        if self.remote is None:
            return {}
        endpoint = os.environ.get("AWS_ENDPOINT_URL") if "://" in self.remote.name else None
        place = {"url": self.remote.name} | ({"endpointurl": endpoint} if endpoint else {})
        return {"remote": {REMOTE: place}}

    def close(self) -> None:
        self.repo.close()

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The graph, in topological order."""
        return graph.read(self.repo)

    @cached_property
    def tracked(self) -> Mapping[str, str]:
        """Digest by path of what `dvc add` tracks: data that no stage makes."""
        sources = [out for out in self.repo.index.outs if not getattr(out.stage, "name", None) and out.hash_info]
        return {Path(out.fs_path).relative_to(self.root).as_posix(): out.hash_info.value for out in sources}

    @cached_property
    def _dvc_stages(self) -> dict[str, Any]:
        return {stage.name: stage for stage in self.repo.index.stages if getattr(stage, "name", None)}

    @cached_property
    def _lock(self) -> Mapping[str, Any]:
        from dvc.utils.serialize import load_yaml

        path = self.root / "dvc.lock"
        return (load_yaml(str(path)) or {}).get("stages", {}) if path.exists() else {}

    def recorded(self, stage: Stage) -> Recorded | None:
        """The stage's entry of dvc.lock."""
        entry = self._lock.get(stage.name)
        return None if entry is None else as_recorded(entry)

    def params(self, stage: Stage) -> Mapping[str, Any]:
        """The stage's parameters as they are in params.yaml now; a missing one is left out."""
        from dvc.dependency import ParamsDependency

        found: dict[str, Any] = {}
        for dep in self._dvc_stages[stage.name].deps:
            if isinstance(dep, ParamsDependency):
                found |= dep.read_params()
        return found

    def content(self, stage: Stage, dep: str, produced: Mapping[str, str]) -> str | None:
        """Hash of a dep as the stage would read it: from the outs before it, what DVC tracks, else the workspace."""
        produced = {**self.tracked, **produced}
        if dep in produced:
            return produced[dep]
        above = next((out for out in produced if dep.startswith(f"{out}/")), None)
        if above is not None:
            return self.cache.member(produced[above], dep.removeprefix(f"{above}/"))
        below = {out.removeprefix(f"{dep}/"): oid for out, oid in produced.items() if out.startswith(f"{dep}/")}
        if below:
            return self.cache.joined(below)
        item = self._deps(stage).get(dep)
        if item is None or not item.exists:
            return None
        return item.get_hash().value

    def stored(self, outs: Mapping[str, str]) -> bool:
        """Whether the cache holds all these outputs undamaged, or git what DVC does not cache."""
        return not self.lacking(outs)

    def lacking(self, outs: Mapping[str, str]) -> str:
        """Why the cache does not hold all these outputs, in words; "" if it does."""
        lost = {out: oid for out, oid in outs.items() if not self.cache.holds(oid) and not self._lies(out, oid)}
        if lost:
            damaged = self.cache.objects.damaged(lost)
            return str(damaged[0]) if damaged else "its outputs are not in the cache"
        return ""

    def cast_out(self, stages: Sequence[Stage], plan: Plan) -> list[Damage]:
        """Remove damaged objects of dvc.lock's outputs from the cache; those that a run is about to read are read now.

        Returns what was removed: what a plan said before no longer holds.
        """
        recorded = [entry.outs for stage in stages if (entry := self.recorded(stage))]
        damaged = self.cache.objects.damaged({out: oid for outs in recorded for out, oid in outs.items()})
        deps = [dep for stage in stages if plan.action(stage.name) == "run" for dep in stage.deps]
        read = {out: oid for out, oid in plan.known.items() if any(overlap(out, dep) for dep in deps)}
        damaged += self.cache.objects.damaged(read, deep=True)
        for one in damaged:
            self.cache.objects.remove(one)
        return list(dict.fromkeys(damaged))

    def remembered(self, stage: Stage, deps: Mapping[str, str | None]) -> Recorded | None:
        """An earlier execution with the present command, params and these deps, if its outputs are stored."""
        key = self.key(stage, deps)
        entry = self.accepted.find(key) if key else None
        if entry is None:
            return None
        earlier = as_recorded(entry)
        if not self.stored(earlier.outs):
            return None
        self._remembered[stage.name] = entry
        return earlier

    def key(self, stage: Stage, deps: Mapping[str, str | None]) -> str | None:
        """The key of the stage's execution with these deps, None where DVC remembers none: it has no deps or outs.

        DVC's own look-up (StageCache._load in 3.67) hashes deps in the workspace, where those that other stages
        will restore are not yet; the key is computed as it does.
        """
        known = [oid for oid in (deps[dep] for dep in stage.deps) if oid is not None]
        if not stage.deps or not stage.outs or len(known) < len(stage.deps):
            return None
        return keys.of_entry(keys.entry_before(self._dvc_stages[stage.name], known))

    def entry(self, stage: Stage) -> Entry | None:
        """The stage's part of dvc.lock, as it was when the store was opened."""
        return self._lock.get(stage.name)

    def as_written(self, stage: Stage, entry: Entry) -> dict[str, Any]:
        """An entry from elsewhere as DVC would write it into dvc.lock here."""
        return keys.entry_of(self._dvc_stages[stage.name], entry)

    def lay_out(self, plan: Plan) -> None:
        """Make the workspace what a plan says: the outputs of stages that are current, and of those to be restored, lie
        there and stand in dvc.lock; what stands there and is not stored is forgotten.

        DVC itself would take an entry whose inputs fit for the only result there can be, and run the stage if its
        outputs are nowhere, whatever the run cache holds.
        """
        from dvc.utils.serialize import dump_yaml

        lock = dict(self._lock)
        for stage in self.stages:
            entry = self.recorded(stage)
            if plan.action(stage.name) == "restore":
                lock[stage.name] = self.as_written(stage, self._remembered[stage.name])
            elif entry is not None and not self.stored(entry.outs):
                del lock[stage.name]
        if lock != self._lock:
            dump_yaml(str(self.root / "dvc.lock"), {"schema": "2.0", "stages": lock})
            self.repo.close()
            self._open()  # what DVC has read of the file is out of date
        self.checkout()
        there = [out for stage in self.stages if plan.action(stage.name) != "run" for out in stage.outs]
        if missing := [out for out in there if not (self.root / out).exists()]:
            raise UserError(f"{', '.join(missing)}: DVC's cache lost it since the run was planned; start the run again")

    def checkout(self, outs: Sequence[str] = ()) -> None:
        """Put the outputs that dvc.lock records and the cache holds into the workspace: these, or all."""
        from dvc.exceptions import DvcException

        try:
            self.repo.checkout([str(self.root / out) for out in outs] or None, force=True, allow_missing=not outs)
        except DvcException as error:
            raise UserError(f"DVC could not put the recorded outputs into {self.root}: {error}") from None

    def _deps(self, stage: Stage) -> dict[str, Any]:
        from dvc.dependency import ParamsDependency

        items = [dep for dep in self._dvc_stages[stage.name].deps if not isinstance(dep, ParamsDependency)]
        return dict(zip(stage.deps, items, strict=True))

    def _lies(self, path: str, oid: str) -> bool:
        """Whether an output that DVC does not cache lies in the workspace, from git, with this digest."""
        if path not in self._uncached or not (self.root / path).is_file():
            return False
        return digests.md5(self.root / path) == oid

    @cached_property
    def _uncached(self) -> set[str]:
        outs = [out for out in self.repo.index.outs if not out.use_cache]
        return {Path(out.fs_path).relative_to(self.root).as_posix() for out in outs}


def as_recorded(entry: Mapping[str, Any]) -> Recorded:
    """A stage's part of dvc.lock, or of a file in the run cache."""
    cmd = entry["cmd"]
    params = {key: value for values in entry.get("params", {}).values() for key, value in values.items()}
    return Recorded(
        cmd=cmd if isinstance(cmd, str) else "\n".join(cmd),
        deps={item["path"]: item.get("md5") for item in entry.get("deps", [])},
        params=params,
        outs={item["path"]: item["md5"] for item in entry.get("outs", [])},
    )
