"""Objects of DVC's cache that no commit, release or run-cache entry reaches.

`dvc gc` does not know the run cache, and would take what only it can bring back; so the marking is done here. What
counts as a reference is wide on purpose: every text in a dvc.lock, a .dvc file or a run-cache entry that looks like
DVC's hash. Whatever cannot be read stops the collection: a reference must not be missed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from flows import repository
from flows.garbage import releases
from flows.garbage.place import Garbage, InTheWay, Kind, Place, alone, newest, remove, size
from flows.settings import Settings

HASH = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?:\.dir)?(?![0-9a-f])")
OBJECT = re.compile(r"[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?")


@contextmanager
def guard(place: Place) -> Iterator[None]:
    """DVC's own lock on the main checkout, with nobody running a stage there."""
    from dvc.lock import LockError
    from dvc.repo import Repo

    root = place.settings.root
    with alone(place), Repo(str(root)) as repo:
        if busy := _stages_at_work(root / ".dvc" / "tmp" / "rwlock"):
            raise InTheWay(f"`{busy}` is working in {root}; again when it has ended")
        if not Path(repo.cache.local_cache_dir).resolve().is_relative_to(root.resolve()):
            raise InTheWay(f"{repo.cache.local_cache_dir} lies outside of {root}: other projects may use it")
        try:
            repo.lock.lock()
        except LockError:
            raise InTheWay(f"DVC is working in {root}; again when it has ended") from None
        try:
            yield
        finally:
            repo.lock.unlock()


def find(place: Place) -> Iterator[Garbage]:
    cache = _cache(place.settings.root)
    objects = cache / "files" / "md5"
    if not objects.is_dir():
        return
    reached = _closed(objects, {name for text in _texts(place.settings, cache) for name in HASH.findall(text)})
    for path in sorted(objects.glob("??/*"), key=lambda found: (not found.name.endswith(".dir"), found)):
        name = path.relative_to(objects).as_posix()
        if not place.old(newest(path)):
            continue
        if OBJECT.fullmatch(name) and name.replace("/", "") not in reached:
            yield Garbage(KIND.name, str(path), size(path), "no tag, branch, release or run-cache entry names it")
        elif name.endswith(".tmp"):
            yield Garbage(KIND.name, str(path), size(path), "written in part and left")


def delete(place: Place, item: Garbage) -> None:
    path = Path(item.what)
    remove(path, path.parents[3])  # <cache>/files/md5/00/11...


KIND = Kind("cache object", find, delete, guard)


def _cache(root: Path) -> Path:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return Path(repo.cache.local_cache_dir)


def _stages_at_work(rwlock: Path) -> str:
    """The command of a living DVC process that works on outputs: it gives its lock away while a stage runs."""
    try:
        held = json.loads(rwlock.read_text())
    except (FileNotFoundError, ValueError):
        return ""
    readers = [one for every in held.get("read", {}).values() for one in every]
    for holder in [*held.get("write", {}).values(), *readers]:
        if psutil.pid_exists(holder.get("pid", -1)):
            return str(holder.get("cmd"))
    return ""


def _texts(settings: Settings, cache: Path) -> Iterator[str]:
    """Whatever may name a hash: in a commit, a checkout or the run cache."""
    yield from _committed(settings.root, _commits(settings.root))
    yield from _committed(settings.root, releases.commits(settings), "--ignore-missing")  # another clone's releases
    for top in _checkouts(settings):  # the user's own, with what is not committed yet
        for path in _listed(top):
            yield path.read_text(errors="replace")
    for parent, _, names in os.walk(cache / "runs"):
        for name in names:
            yield Path(parent, name).read_text(errors="replace")


def _commits(root: Path) -> set[str]:
    """The commits that a tag, a branch, a stash or another reference names, and those checked out."""
    refs = repository.git(root, "for-each-ref", "--format=%(objecttype) %(objectname) %(*objecttype) %(*objectname)")
    words = [line.split() for line in refs.splitlines()]
    named = {pair[i + 1] for pair in words for i in range(0, len(pair) - 1, 2) if pair[i] == "commit"}
    heads = re.findall(r"^HEAD ([0-9a-f]{40})$", repository.git(root, "worktree", "list", "--porcelain"), re.M)
    return named | {head for head in heads if head.strip("0")}


def _checkouts(settings: Settings) -> list[Path]:
    """Every checkout of the repository that is no run's own worktree."""
    listed = repository.git(settings.root, "worktree", "list", "--porcelain")
    tops = map(Path, re.findall(r"^worktree (.+)$", listed, re.M))
    return [top for top in tops if top.is_dir() and not top.resolve().is_relative_to(settings.home.resolve())]


def _listed(top: Path) -> Iterator[Path]:
    """dvc.lock and .dvc files of a checkout, the untracked ones too."""
    names = repository.git(top, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in names.split("\0"):
        if _refers(name) and (top / name).is_file():
            yield top / name


def _committed(root: Path, commits: Iterable[str], *options: str) -> Iterator[str]:
    """The text of every dvc.lock and .dvc file of these commits; what many of them share is read once."""
    blobs: set[str] = set()
    for some in _portions(commits):
        objects = repository.git(root, "rev-list", "--objects", "--no-walk", *options, *some)
        blobs.update(line[:40] for line in objects.splitlines() if _refers(line[41:]))
    for some in _portions(blobs):
        yield repository.git(root, "show", *some)


def _portions(words: Iterable[str], most: int = 500) -> Iterator[list[str]]:
    """As many words at a time as a command line takes."""
    every = sorted(words)
    yield from (every[start : start + most] for start in range(0, len(every), most))


def _refers(name: str) -> bool:
    return name.rpartition("/")[2] == "dvc.lock" or (name.endswith(".dvc") and name != ".dvc")


def _closed(objects: Path, named: set[str]) -> set[str]:
    """What is named, and what lies in the folders that are named."""
    reached = set(named)
    for name in named:
        path = objects / name[:2] / name[2:]
        if not name.endswith(".dir") or not path.exists():
            continue
        try:
            reached.update(entry["md5"] for entry in json.loads(path.read_text()))
        except (ValueError, KeyError, TypeError):
            raise InTheWay(f"{path} is damaged, so what it holds is not known; fetch or make it again") from None
    return reached
