"""What dvc.lock says about a stage, as one digest of what went in and one of what came out.

The same digest of the inputs with two digests of the outputs means that the stage is not deterministic: `doubles`
finds that within DVC's run cache, `flows.catalogue.record` between runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from data.core import plain_yaml
from flows.pipeline import keys
from flows.pipeline.keys import Entry

SIZES = ("size", "nfiles")  # follow from the digests

GUARDS = ("validate",)  # stages that let data through and add nothing to it


def read_lock(workspace: Path) -> dict[str, Entry]:
    """The stages of dvc.lock; {} where no stage ever ended well."""
    path = workspace / "dvc.lock"
    return lock_in(path.read_bytes()) if path.exists() else {}


def lock_in(text: bytes) -> dict[str, Entry]:
    """The stages of a dvc.lock that was read elsewhere, as from a commit."""
    return (_load(text) or {}).get("stages") or {}


def input_digest(entry: Entry) -> str:
    """SHA-256 over command, parameters and the digests of all deps; "" without deps: DVC then runs it every time."""
    if not entry.get("deps"):
        return ""
    return _digest({"cmd": entry["cmd"], "params": entry.get("params", {}), "deps": _contents(entry["deps"])})


def output_digest(entry: Entry) -> str:
    """SHA-256 over the digests of all outs."""
    return _digest(_contents(entry.get("outs", [])))


def doubles(workspace: Path, lock: Mapping[str, Entry]) -> Iterator[tuple[str, str]]:
    """(stage, digest of outputs) for each other result that DVC's run cache remembers for the inputs in dvc.lock."""
    from dvc.repo import Repo

    with Repo(str(workspace)) as repo:
        cache = Path(repo.stage_cache.cache_dir)
    for name, entry in lock.items():
        if not entry.get("deps"):
            continue
        key = keys.of_entry(entry)
        values = list((cache / key[:2] / key).glob("[0-9a-f]*"))
        if len(values) > 1:
            found = {output_digest(_load(value.read_bytes())) for value in values}
            yield from ((name, other) for other in sorted(found - {output_digest(entry)}))


def _contents(items: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["path"]: {k: v for k, v in item.items() if k not in ("path", *SIZES)} for item in items}


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _load(text: bytes) -> Any:
    """What DVC wrote, as it reads it: to PyYAML alone 1e-05 is a text."""
    return plain_yaml.recorded(text)


def data_of(lock: Mapping[str, Any], path: str) -> dict[str, str]:
    """Digests of the data that an output was made from: the outs of the graph's first stages, by stage name.

    lock: the content of dvc.lock. The digests are DVC's own, so `dvc` finds these bytes again.
    """
    stages = lock.get("stages", {})
    makers = {out["path"]: name for name, stage in stages.items() for out in stage.get("outs", [])}

    def before(wanted: str) -> Iterator[str]:
        for out, name in makers.items():
            if out == wanted or out.startswith(f"{wanted}/") or wanted.startswith(f"{out}/"):
                yield name

    data: dict[str, str] = {}
    todo, seen = list(before(path)), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        upstream = [maker for dep in stages[name].get("deps", []) for maker in before(dep["path"])]
        todo += [maker for maker in upstream if maker not in GUARDS]
        if not upstream:
            data[name] = ",".join(out["md5"] for out in stages[name]["outs"])
    return dict(sorted(data.items()))
