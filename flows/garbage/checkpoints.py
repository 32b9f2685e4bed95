"""Checkpoints and shards that no stage has gone on from: `<stage>-<digest of its inputs>` at REMINT_CHECKPOINTS, and
`reproduce-<commit>` with all that the stages of a reproduction keep.

A key may be wanted again tomorrow (the code changed back) or never; nobody can tell but by age.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data.core.params import UserError
from flows.garbage.place import Garbage, InTheWay, Place, newest, remove, size

KIND = "checkpoint"
NAME = re.compile(r"[\w@-]+-[0-9a-f]{16}")
WHY = "no run works, and none has gone on from it"


@contextmanager
def guard(place: Place) -> Iterator[None]:
    place.alone()
    yield


def find(place: Place) -> Iterator[Garbage]:
    address = place.settings.checkpoints
    yield from _in_a_bucket(address, place.grace) if "://" in address else _in_a_folder(Path(address), place)


def delete(place: Place, item: Garbage) -> None:
    address = place.settings.checkpoints
    if "://" not in address:
        remove(Path(item.what), Path(address))
        return
    from data.core import checkpoint_store

    checkpoint_store.discard(address, item.what.removeprefix(f"{address.rstrip('/')}/"))


def _in_a_folder(folder: Path, place: Place) -> Iterator[Garbage]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if NAME.fullmatch(path.name) and place.old(newest(path)):
            yield Garbage(KIND, str(path), size(path), WHY)


def _in_a_bucket(address: str, grace: float) -> Iterator[Garbage]:
    """Runs of other machines save there too; one that works saves far more often than once in the grace period.

    What a reproduction keeps lies below a name of its own, and goes at once.
    """
    from data.core import checkpoint_store

    try:
        found = checkpoint_store.unfinished(address, idle=float("-inf"))
    except UserError:  # neither message nor address is repeated: somebody may have written credentials into it
        raise InTheWay("REMINT_CHECKPOINTS is neither a folder nor s3://bucket/prefix") from None
    except OSError as error:
        raise InTheWay(f"REMINT_CHECKPOINTS cannot be asked ({type(error.__cause__ or error).__name__})") from None
    places: dict[str, list[checkpoint_store.Unfinished]] = {}
    for one in found:
        places.setdefault(one.place.partition("/")[0], []).append(one)
    for place, every in places.items():
        if time.time() - max(one.modified for one in every) >= grace:
            yield Garbage(KIND, f"{address.rstrip('/')}/{place}", sum(one.size for one in every), WHY)
