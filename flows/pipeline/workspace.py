"""A git worktree for each run, so that a run never touches the user's checkout and two runs never meet.

    with workspace.opened(settings, commit, run_id) as root:
        ...

The worktree has DVC's cache and run cache in common with the main checkout. A lock on `worktrees/<id>.pid` is held
as long as the run lives; the operating system drops it when the process dies, however it dies, and the next run
then removes what was left behind.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil

from data.core import locks
from data.core.params import UserError
from flows import repository
from flows.settings import Settings


@contextmanager
def opened(settings: Settings, commit: str, identifier: str) -> Iterator[Path]:
    """A new worktree at `commit`, removed at the end."""
    folder = settings.worktrees / identifier
    with exclusive(settings):
        for left in dead(settings):
            remove_dead(settings, left)
        mark = _claim(folder)
        repository.git(settings.root, "worktree", "add", "--quiet", "--detach", "--no-checkout", str(folder), commit)
    try:
        repository.write_tree(folder, commit)
        _share_cache(settings, folder)
        yield folder
    finally:
        with exclusive(settings):
            _remove(settings.root, folder)
        mark.close()


def start_from(settings: Settings, folder: Path, run_tag: str | None) -> None:
    """Put the dvc.lock of the newest run into the worktree: what it records need not run again.

    Without a run, HEAD's own dvc.lock stays. If the recorded results belong to other code, data or parameters,
    the plan says so stage by stage.
    """
    text = repository.file_at(settings.root, run_tag, "dvc.lock") if run_tag else None
    if text is not None:
        (folder / "dvc.lock").write_text(text, encoding="utf-8", newline="")


def order_lock(folder: Path, stages: Sequence[str]) -> None:
    """Write dvc.lock with exactly `stages` and in their order.

    Stages that ran at once append to the file in the order in which they ended, and a lock taken from another
    commit may name stages that are gone; two runs of one commit shall give the same bytes.
    """
    from dvc.utils.serialize import dump_yaml, load_yaml

    path = folder / "dvc.lock"
    lock = load_yaml(str(path))
    lock["stages"] = {name: lock["stages"][name] for name in stages if name in lock["stages"]}
    dump_yaml(str(path), lock)


def write_lock(folder: Path, entries: Mapping[str, Mapping[str, Any]]) -> None:
    """Put the entries of stages that ran elsewhere into dvc.lock."""
    from dvc.utils.serialize import dump_yaml, load_yaml

    path = folder / "dvc.lock"
    lock: dict[str, Any] = load_yaml(str(path)) if path.exists() else {"schema": "2.0", "stages": {}}
    lock["stages"] = {**lock["stages"], **entries}
    dump_yaml(str(path), lock)


def replace_lock(folder: Path, entries: Mapping[str, Any]) -> None:
    """Let dvc.lock hold exactly these entries: every other stage is to run."""
    from dvc.utils.serialize import dump_yaml

    dump_yaml(str(folder / "dvc.lock"), {"schema": "2.0", "stages": _plain(entries)})


def read_entry(folder: Path, stage: str) -> dict[str, Any]:
    """A stage's entry of dvc.lock, in plain containers."""
    from dvc.utils.serialize import load_yaml

    found: dict[str, Any] = _plain(load_yaml(str(folder / "dvc.lock"))["stages"][stage])
    return found


def _plain(values: Any) -> Any:
    """YAML's and JSON's containers as plain ones, which both can write."""
    if isinstance(values, Mapping):
        return {str(name): _plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_plain(value) for value in values]
    return values


@contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Only one process at a time makes and removes worktrees."""
    try:
        settings.worktrees.mkdir(parents=True, exist_ok=True)
        lock = locks.take(settings.worktrees / ".lock")
    except OSError as error:
        raise UserError(
            f"cannot write in {settings.worktrees} ({error.strerror}); free space or permissions, or name another "
            "folder with REMINT_HOME"
        ) from None
    with lock:
        yield


def _claim(folder: Path) -> IO[str]:
    """The open and locked pid file that says: a living run works in `folder`."""
    mark = locks.take(folder.with_suffix(".pid"), "x")
    mark.write(f"{os.getpid()}\n")
    mark.flush()
    return mark


def living(settings: Settings) -> set[str]:
    """The ids of the runs that work on this machine now."""
    return {path.stem for path in settings.worktrees.glob("*.pid") if locks.is_held(path)}


def dead(settings: Settings) -> list[Path]:
    """The worktrees of runs that were killed; to be asked under `exclusive`."""
    return [mark.with_suffix("") for mark in sorted(settings.worktrees.glob("*.pid")) if not locks.is_held(mark)]


def remove_dead(settings: Settings, folder: Path) -> None:
    """Remove a killed run's worktree and end the processes that it left there."""
    _end_processes_in(folder)
    _remove(settings.root, folder)


def _remove(root: Path, folder: Path) -> None:
    repository.git(root, "worktree", "remove", "--force", str(folder), check=False)
    shutil.rmtree(folder, ignore_errors=True)
    repository.git(root, "worktree", "prune", check=False)
    shutil.rmtree(index_folder(folder), ignore_errors=True)
    folder.with_suffix(".pid").unlink(missing_ok=True)


def index_folder(folder: Path) -> Path:
    """Where DVC keeps its file hashes for a worktree; it goes with the worktree."""
    return folder.with_suffix(".dvc")


def _end_processes_in(folder: Path) -> None:
    """Kill what a dead run left working in its worktree: a killed flow cannot stop its stages itself."""
    for process in psutil.process_iter(["cwd"]):
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(folder):
            with contextlib.suppress(psutil.Error):
                process.kill()


def cache(settings: Settings) -> Path:
    """DVC's cache of this project: REMINT_CACHE, which clones of a machine may share, else the main checkout's own."""
    from dvc.repo import Repo

    if settings.cache is not None:
        return settings.root / settings.cache.expanduser()
    with Repo(str(settings.root)) as repo:
        return Path(repo.cache.local_cache_dir)


def _share_cache(settings: Settings, folder: Path) -> None:
    """Point the worktree's DVC at the project's cache, with the user's own remotes and credentials.

    Outputs are linked from the cache where the file system can, so that a worktree costs no space.
    """
    from configobj import ConfigObj

    main, own = settings.root / ".dvc" / "config.local", folder / ".dvc" / "config.local"
    if main.exists():
        shutil.copyfile(main, own)
    # DVC itself would write ASCII, and read it as the locale has it: a relative path leaves most names out
    relative = os.path.relpath(os.path.realpath(cache(settings)), os.path.realpath(own.parent))
    config = ConfigObj(str(own), encoding="utf-8")
    config.merge({"cache": {"dir": relative, "type": "reflink,hardlink,copy"}})
    config.merge({"core": {"analytics": "false", "check_update": "false"}})
    config.write()
