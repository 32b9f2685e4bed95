"""Outputs of stages that ran elsewhere, as files in a run's workspace: those that a run's last steps read.

Shards are not among them, but for the few that hold an example of each class: they are what is large, and only stages
read them. DVC keeps each file of an output folder as an object of its own, so that a manifest comes without its shards.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path

from flows.pipeline import accepted
from flows.pipeline.families import models_of
from flows.pipeline.keys import Entry
from flows.pipeline.plan import overlap
from flows.pipeline.store import Store
from flows.settings import Settings

SCENES = "artifacts/scenes"
SHARD = ".tar"  # how shards end (data.core.shards)
WEIGHTS = "model.safetensors"

Wanted = Callable[[str], bool]  # whether a path, relative to the repository, is to be there


def last_steps(store: Store, entries: Iterable[Entry]) -> None:
    """Put into a run's workspace what registry, gates, catalogue and report read."""
    models = [model.path.as_posix() for model in models_of(store.root)]
    every = list(entries)
    bring(store, every, all_but_shards(models))
    examples = frozenset(f"{SCENES}/{shard}" for shard in _of_examples(store.root / SCENES / "manifest.parquet"))
    bring(store, every, lambda path: path in examples)


def inputs(settings: Settings, workspace: Path, entry: Entry, lock: Mapping[str, Entry]) -> None:
    """Put all that a stage reads into a workspace, with its shards."""
    with closing(Store(workspace, accepted.remote(settings))) as store:
        deps = [dep["path"] for dep in entry["deps"]]
        bring(store, lock.values(), lambda path: any(overlap(path, dep) for dep in deps))


def bring(store: Store, entries: Iterable[Entry], wanted: Wanted) -> None:
    """Put the wanted files of these stages' outputs into the workspace, from the cache or from the remote."""
    files: dict[str, str] = {}
    for entry in entries:
        for out in entry.get("outs", []):
            files |= {path: oid for path, oid in _files(store, out).items() if wanted(path)}
    files = {path: oid for path, oid in files.items() if not (store.root / path).exists()}
    store.cache.fetch(files)
    for path, oid in files.items():
        put(store.cache.objects.path(oid), store.root / path)


def shown(metrics: Iterable[str]) -> Wanted:
    """What the flow shows of a stage that has just ended: its metrics and figures."""
    known = frozenset(metrics)
    return lambda path: path in known or ("/figures/" in path and path.endswith(".png"))


def all_but_shards(models: Iterable[str]) -> Wanted:
    """What the last steps of a run read; of weights only those in the folders of registered models."""
    weights = frozenset(f"{folder}/{WEIGHTS}" for folder in models)
    return lambda path: not path.endswith(SHARD) and (not path.endswith(f"/{WEIGHTS}") or path in weights)


def _of_examples(manifest: Path) -> set[str]:
    """The shards with the first held-out scene of each class: the report shows these, the first is models' example."""
    import pyarrow.parquet as pq

    if not manifest.exists():
        return set()
    rows = pq.read_table(manifest, columns=["label", "split", "shard"]).to_pylist()
    first: dict[int, str] = {}
    for row in sorted(rows, key=lambda row: row["split"] != "val"):  # the sort keeps the order of the rows
        first.setdefault(row["label"], row["shard"])
    return set(first.values())


def _files(store: Store, out: Mapping[str, str]) -> dict[str, str]:
    """The files of an output with their objects."""
    members = store.cache.members(out["md5"])
    return {f"{out['path']}/{name}" if name else out["path"]: oid for name, oid in members.items()}


def put(source: Path, target: Path) -> None:
    """A file of the cache at its place, without a copy where the file system can; what is there already stays."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
