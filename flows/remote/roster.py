"""What each worker carries and does, in the ledger's bucket: Prefect knows of a worker only its name and heartbeat.

    workers/<pool>/<name>.json    replaced by the worker when it starts, and when a stage begins and ends

A worker that was killed leaves its entry: whether a worker lives, Prefect's server says (`flows.remote.pools`).
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass

from data.core.params import UserError
from flows.storage.protocol import PART, Bucket, NotThere

WORKERS = "workers"


@dataclass(frozen=True)
class Entry:
    """A worker, in its own words."""

    name: str
    pool: str
    host: str = ""
    device: str = "cpu"  # "cpu", "cuda:0,1"
    machine: str = ""  # flows.pipeline.environment.Environment.machine
    lock: str = ""  # sha256 of its requirements.lock
    stage: str = ""  # what it works on, "" if it is idle


def check_name(name: str) -> str:
    """The name itself; UserError unless Prefect and a bucket can both keep it."""
    if not PART.fullmatch(name):
        raise UserError(
            f"'{name}' is not a name for a worker: 1 to 128 letters, digits and _.@+=-, the first a letter or digit"
        )
    return name


def put(store: Bucket, entry: Entry) -> None:
    store.replace(_key(entry.pool, entry.name), (json.dumps(asdict(entry), sort_keys=True) + "\n").encode())


def get(store: Bucket, pool: str, name: str) -> Entry:
    """What a worker says of itself; a bare entry if it has said nothing."""
    try:
        return Entry(**json.loads(store.read(_key(pool, name))))
    except (NotThere, ValueError, TypeError):  # another version's entry tells nothing either
        return Entry(name, pool)


def remove(store: Bucket, entry: Entry) -> None:
    store.delete(_key(entry.pool, entry.name))


def _key(pool: str, name: str) -> str:
    return f"{WORKERS}/{re.sub(r'[^A-Za-z0-9_.@+=-]', '_', pool)}/{name}.json"
