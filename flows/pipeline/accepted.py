"""The run cache here and in the remote: what was executed once is found by every later run, of any machine.

    runs/<first two letters of key>/<key>/<value>    an entry of dvc.lock, as DVC keeps it
    files/md5/<first two letters>/<the rest>         objects, as DVC keeps them

One key costs one listing and one read, however many runs there were. Two values under one key are a stage that is not
deterministic: both come here, where who records a run sees them (`flows.pipeline.lock.doubles`).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any

from data.core import plain_yaml
from data.core.files import write_whole
from data.core.params import UserError
from flows.pipeline import keys
from flows.pipeline.keys import Entry
from flows.settings import Settings
from flows.storage import bucket
from flows.storage.protocol import Bucket, NotThere, Taken
from flows.storage.retry import retry

ENTRY = re.compile(r"/[0-9a-f]{64}$")
LARGEST = 256 << 20  # bytes of a folder's list of files: millions of them


class Accepted:
    """DVC's run cache in a folder of this machine and, where there is one, in the remote."""

    def __init__(self, here: Path, remote: Bucket | None = None) -> None:
        self.here, self.remote = here, remote
        self._held: set[str] = set()  # objects that the remote was seen to hold: nothing there is ever removed by a run

    def find(self, key: str) -> Entry | None:
        """The entry of an execution with this key: the newest of this machine, else the remote's."""
        folder = self.here / key[:2] / key
        paths = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime) if folder.is_dir() else []
        if paths:
            return _entry(paths[-1].read_bytes(), str(paths[-1]))
        return next(iter(self.gather(key)), None)

    def gather(self, key: str) -> list[Entry]:
        """Bring every entry that the remote has for a key; more than one: its stage is not deterministic."""
        if self.remote is None:
            return []
        names = [name for name in self.remote.list(f"runs/{key[:2]}/{key}/") if ENTRY.search(name)]
        entries: list[Entry] = [_entry(self.remote.read(name), f"{self.remote.name}/{name}") for name in names]
        for entry in entries:
            self._keep(key, entry)
        return entries

    def knows(self, entry: Entry) -> bool:
        """Whether the run cache has this very execution, with these outputs."""
        if not entry.get("deps") or not entry.get("outs"):
            return False  # DVC remembers no such stage
        key, value = keys.of_entry(entry), keys.value_of(entry)
        if (self.here / key[:2] / key / value).exists():
            return True
        name = f"runs/{key[:2]}/{key}/{value}"
        return self.remote is not None and name in self.remote.list(name)

    def add(self, key: str, entry: Entry) -> None:
        """Remember an execution, here and in the remote."""
        text = self._keep(key, entry)
        if self.remote is not None:
            remote, name = self.remote, f"runs/{key[:2]}/{key}/{keys.value_of(entry)}"
            with contextlib.suppress(Taken):  # somebody else accepted the same
                retry(remote.create, name, text)

    def holds(self, oid: str) -> bool:
        """Whether the remote holds an object; a folder's list is put there after its files."""
        if self.remote is None or oid in self._held:
            return oid in self._held
        if _place(oid) in self.remote.list(_place(oid)):
            self._held.add(oid)
        return oid in self._held

    def bring_list(self, oid: str, path: Path) -> bool:
        """Bring a folder's list of files from the remote into the cache; False if it is not there."""
        if self.remote is None:
            return False
        try:
            data = self.remote.read(_place(oid), LARGEST)
        except NotThere:
            return False
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != oid.removesuffix(".dir"):
            raise UserError(f"{self.remote.name}/{_place(oid)} is damaged: its content is not what its name says")
        _write(path, data)
        return True

    def _keep(self, key: str, entry: Entry) -> bytes:
        """Remember an execution here; returns the text of its entry."""
        from dvc.utils.serialize import dumps_yaml

        text = str(dumps_yaml(dict(entry))).encode()
        path = self.here / key[:2] / key / keys.value_of(entry)
        if not path.exists():
            _write(path, text)
        return text


def remote(settings: Settings) -> Bucket | None:
    """Where outputs and the run cache meet if workers run the stages; None where stages run on this machine."""
    return None if settings.stages == "here" else exchanged(settings)


def exchanged(settings: Settings) -> Bucket:
    """DVC's remote, by which machines exchange outputs: REMINT_REMOTE."""
    return bucket.at(settings.remote, "REMINT_REMOTE")


def _place(oid: str) -> str:
    return f"files/md5/{oid[:2]}/{oid[2:]}"


def _entry(text: bytes, where: str) -> dict[str, Any]:
    """An execution as the run cache has it; UserError names one that is damaged."""
    try:
        entry = parse(text)
        if entry["cmd"] and all(out["path"] and out["md5"] for out in entry["outs"]):
            return entry
        why = "incomplete"
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        why = str(error)
    raise UserError(f"{where} of DVC's run cache is damaged ({why}); remove it: its stage runs again")


def parse(text: bytes) -> dict[str, Any]:
    """As DVC reads it: in another YAML's eyes 1e-05 is a text."""
    return dict(plain_yaml.recorded(text))


def _write(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)
