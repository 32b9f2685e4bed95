"""A release brought to this machine: a folder holds the whole release or what it held before, at every instant.

    DIR/release.json                    the pointer
    DIR/newest.json                     the newest pointer seen by a pull into DIR, where that is another
    DIR/<model>/model.safetensors, config.json, ..., manifest.json      its bundle

It is put together in DIR.partial, where an interrupted pull goes on, verified there, and then exchanged with DIR.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.core import locks
from data.core.files import sync, write
from data.core.params import UserError, near
from flows.release import bundle, pointers
from flows.release.pointers import Member, Pointer
from flows.storage import swap
from flows.storage.protocol import Bucket

RELEASE, NEWEST = "release.json", "newest.json"
FULL = (errno.ENOSPC, errno.EDQUOT)

Shown = Callable[[int, int], None]  # bytes that are here, of how many
Hold = Callable[[Sequence[Pointer]], None]  # raises where somebody knows the log otherwise


@dataclass(frozen=True)
class Pulled:
    """A release that is now in a folder."""

    pointer: Pointer
    folder: Path
    size: int  # bytes
    new: bool  # False: it was there already


def pull(
    bucket: Bucket,
    family: str,
    number: int | None,
    into: Path,
    shown: Shown | None = None,
    hold: Hold = lambda log: None,
) -> Pulled:
    """Bring a family's release into the folder `into`: the one of that number, or what is in production now.

    The folder is absent, empty, or holds a release of this family; anything else is refused and left alone.
    Every digest is verified, also of what was there already. UserError leaves the folder as it was.
    hold: called with the end of the log, from the release on.
    """
    folder = Path(os.path.abspath(into.expanduser()))  # noqa: PTH100, a link stays a link
    if folder == Path.cwd() or folder in Path.cwd().parents:
        raise UserError(f"{folder} is where you stand, and a pull exchanges it as a whole; name a folder in it")
    pointer = find(bucket, family, number)
    log = _end_of_log(bucket, pointer, _seen(folder, family))
    hold(log)
    manifests = [_manifest(bucket, pointer, member) for member in pointer.members]
    size = sum(manifest.size for manifest in manifests)
    staging = folder.with_name(f"{folder.name}.partial")
    done = 0

    def arrived(count: int) -> None:
        nonlocal done
        done += count
        if shown:
            shown(done, size)

    with _explained(staging):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            swap.recover(folder)
            if new := not holds(folder, pointer):
                _refuse_other_content(folder, family)
                _check_room(staging, size)
                _fill(bucket, pointer, log[-1], folder, staging, arrived)
                swap.install(staging, folder)
            elif staging.exists() and not _strangers(staging):  # of an interrupted pull, or the release before
                shutil.rmtree(staging)
            if not new:
                _remember(folder, log[-1])
    return Pulled(pointer, folder, size, new)


def find(bucket: Bucket, family: str, number: int | None) -> Pointer:
    """A family's release; UserError names the families and releases that are near."""
    newest = pointers.newest(bucket, family) if pointers.NAME.fullmatch(family) else None
    if newest is not None:
        return newest if number is None else pointers.read(bucket, family, number)
    known = pointers.families(bucket)
    if not known:
        raise UserError(f"{bucket.name} holds no release yet; promote one first, or correct REMINT_PRODUCTION")
    for other in known:
        released = pointers.newest(bucket, other)
        if released and family in [member.model for member in released.members]:
            raise UserError(f"{family} is a model, released as part of {other}: remint pull {other}@production")
    raise UserError(f"there is no family {family!r} in {bucket.name}{near(family, known)}")


def holds(folder: Path, pointer: Pointer) -> bool:
    """Whether the folder holds exactly this release, every file verified."""
    try:
        same = (folder / RELEASE).read_bytes() == pointers.text(pointer).encode()
    except OSError:
        return False
    return same and all(bundle.at(folder / m.model, m.model, m.bundle) for m in pointer.members)


def _end_of_log(bucket: Bucket, pointer: Pointer, seen: Pointer | None) -> list[Pointer]:
    """The log from a release on, each pointer as the next one names it; UserError if it is not the log seen before.

    A release is held against what the next says of it, the newest against what it says of the one before.
    """
    first = min(pointer.number, seen.number) if seen else pointer.number
    log = pointers.log(bucket, pointer.family, first=max(1, min(first, pointer.number - 1)))
    if seen is None:
        return log
    was = f"{seen.family}@{seen.number}, which an earlier pull into this folder has seen,"
    there = next((one for one in log if one.number == seen.number), None)
    if there is None:
        says = f"is not in the log of {bucket.name} any more, which ends with {seen.family}@{log[-1].number}"
    elif there != seen:
        says = f"is another one in {bucket.name} now: digest {pointers.digest(seen)} then, {pointers.digest(there)} now"
    else:
        return log
    raise UserError(
        f"{was} {says}; nothing was installed. Ask who keeps the bucket (remint doctor), or pull into another folder"
    )


def _seen(folder: Path, family: str) -> Pointer | None:
    """The newest release that pulls into the folder have seen, None if there was none."""
    found = []
    for name in (RELEASE, NEWEST):
        with contextlib.suppress(OSError, UserError):  # what else is in the folder is refused later
            found.append(pointers.parse((folder / name).read_bytes(), name))
    return max((one for one in found if one.family == family), key=lambda one: one.number, default=None)


def _remember(folder: Path, newest: Pointer) -> None:
    """Note in a folder that holds a release how far the log goes now."""
    seen = _seen(folder, newest.family)
    if seen is None or seen.number < newest.number:
        write(folder / f"{NEWEST}.partial", pointers.text(newest).encode())
        (folder / f"{NEWEST}.partial").replace(folder / NEWEST)
        sync(folder)


def _manifest(bucket: Bucket, pointer: Pointer, member: Member) -> bundle.Manifest:
    manifest = bundle.read(bucket, member.model, member.bundle)
    if manifest.weights != member.weights:
        raise UserError(
            f"{pointer.family}@{pointer.number} names weights {member.weights} of {member.model}, but its bundle holds "
            f"{manifest.weights}; nothing was installed. Ask who keeps the bucket (remint doctor)"
        )
    return manifest


def _fill(
    bucket: Bucket, pointer: Pointer, newest: Pointer, folder: Path, staging: Path, watch: Callable[[int], None]
) -> None:
    """Make the staging folder the release: go on with what is there, take over what the old release has in common."""
    if strangers := _strangers(staging) if staging.exists() else []:
        raise UserError(f"{staging} holds {strangers[0]}, which no pull left there; move it, or pull elsewhere")
    staging.mkdir(exist_ok=True)
    members = {member.model: member for member in pointer.members}
    for entry in staging.iterdir():
        if entry.is_dir() and entry.name not in members:
            shutil.rmtree(entry)
    for model, member in members.items():
        place, old = staging / model, folder / model
        same = None if bundle.at(place, model, member.bundle) else bundle.at(old, model, member.bundle)
        for file in same.files if same else ():
            place.mkdir(exist_ok=True)
            shutil.copyfile(old / file.name, place / file.name)
            sync(place / file.name)
        manifest = bundle.fetch(bucket, model, member.bundle, place, watch=watch)
        for entry in place.iterdir():
            if entry.name not in {bundle.MANIFEST, *(file.name for file in manifest.files)}:
                entry.unlink()  # of another bundle that an earlier pull was at
        sync(place)
    write(staging / RELEASE, pointers.text(pointer).encode())
    (staging / NEWEST).unlink(missing_ok=True)
    if newest.number > pointer.number:
        write(staging / NEWEST, pointers.text(newest).encode())
    sync(staging)


def _refuse_other_content(folder: Path, family: str) -> None:
    """UserError if there is anything in the folder's place that is not a release of this family."""
    elsewhere = "; name another folder, or move it"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} is a {'link' if folder.is_symlink() else 'file'}, not a folder{elsewhere}")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / RELEASE).is_file():
        raise UserError(f"{folder} holds something else than a release{elsewhere}")
    there = pointers.parse((folder / RELEASE).read_bytes(), str(folder / RELEASE))
    if there.family != family:
        raise UserError(f"{folder} holds {there.family}@{there.number}, a release of another family{elsewhere}")
    if strangers := _strangers(folder):
        raise UserError(f"{folder} holds {strangers[0]}, which is not of its release and would be lost{elsewhere}")


def _strangers(folder: Path) -> list[str]:
    """What is in a folder and cannot be of a release, nor of one that is on its way."""
    if folder.is_symlink():
        return [f"a link to {folder.readlink()}"]
    files = {name + end for name in (*bundle.FILES, bundle.MANIFEST) for end in ("", ".partial")}

    def known(entry: Path) -> bool:
        if entry.is_symlink() or not entry.is_dir():
            return entry.name in (RELEASE, NEWEST, f"{NEWEST}.partial") and entry.is_file()
        return bool(pointers.NAME.fullmatch(entry.name)) and all(
            inner.name in files and inner.is_file() and not inner.is_symlink() for inner in entry.iterdir()
        )

    return sorted(entry.name for entry in folder.iterdir() if not known(entry))


def _check_room(staging: Path, size: int) -> None:
    here = sum(path.stat().st_size for path in staging.rglob("*") if path.is_file()) if staging.exists() else 0
    free = shutil.disk_usage(staging.parent).free
    if size - here > free:
        raise UserError(
            f"{staging.parent} has {free / 1e6:,.0f} MB free, {(size - here) / 1e6:,.0f} MB are needed; "
            "free space or pull elsewhere"
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One pull at a time into a folder. The lock's file is removed by its holder; a dead holder has lost the lock."""
    path = folder.with_name(f".{folder.name}.remint-pull")
    while True:
        try:
            lock = locks.take(path, wait=False)
        except BlockingIOError:
            raise UserError(f"another pull into {folder} is under way; wait for its end") from None
        with lock:
            if os.fstat(lock.fileno()).st_nlink == 0:
                continue  # its last holder removed the file between our open and our lock
            try:
                yield
            finally:
                path.unlink()
            return


@contextlib.contextmanager
def _explained(staging: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError(
                f"no space left in {staging.parent}: free some and run again; what has arrived is kept in {staging}"
            ) from None
        raise UserError(f"cannot write {error.filename or staging}: {error.strerror}; name another folder") from None
