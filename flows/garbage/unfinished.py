"""Work on S3 or in REMINT_CHECKPOINTS that nobody goes on with: checkpoints, and uploads in parts that were broken off.

Checkpoints and shards lie under `<stage>-<digest of its inputs>`, and what the stages of a reproduction keep under
`reproduce-<commit>`. A key may be wanted again tomorrow (the code changed back) or never; nobody can tell but by age.
The parts of an upload are stored, and no list of objects shows them. Who uploads may be another machine: only what was
begun a day ago, by the server's own clock, is given up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from data.core import checkpoint_store
from data.core.params import UserError
from flows.garbage.place import Garbage, InTheWay, Kind, Place, alone, newest, remove, size
from flows.settings import PLACES, Settings

if TYPE_CHECKING:
    from flows.storage.uploads import Uploads

NAME = re.compile(r"[\w@-]+-[0-9a-f]{16}")
WHY = "no run works, and none has gone on from it"
LEAST_SECONDS = 86400.0


def checkpoints(place: Place) -> Iterator[Garbage]:
    address = place.settings.checkpoints
    yield from _in_a_bucket(address, place.grace) if "://" in address else _in_a_folder(Path(address), place)


def remove_checkpoint(place: Place, item: Garbage) -> None:
    address = place.settings.checkpoints
    if "://" in address:
        checkpoint_store.discard(address, item.what.removeprefix(f"{address.rstrip('/')}/"))
    else:
        remove(Path(item.what), Path(address))


def uploads(place: Place) -> Iterator[Garbage]:
    seen = set()
    for bucket in _buckets(place.settings):
        for upload in bucket.unfinished():
            what = f"s3://{bucket.bucket}/{upload.key} {upload.id}"
            if upload.age >= max(place.grace, LEAST_SECONDS) and what not in seen:
                seen.add(what)
                yield Garbage("upload", what, upload.bytes, "begun, and neither finished nor given up")


def give_up_upload(place: Place, item: Garbage) -> None:
    name, _, identifier = item.what.rpartition(" ")
    where, _, key = name.removeprefix("s3://").partition("/")
    for bucket in _buckets(place.settings):
        if bucket.bucket == where and key.startswith(bucket.prefix):
            bucket.give_up(key, identifier)
            return


CHECKPOINTS = Kind("checkpoint", checkpoints, remove_checkpoint, alone)
UPLOADS = Kind("upload", uploads, give_up_upload)  # a run of this machine may work: its uploads are younger


def _in_a_folder(folder: Path, place: Place) -> Iterator[Garbage]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if NAME.fullmatch(path.name) and place.old(newest(path)):
            yield Garbage("checkpoint", str(path), size(path), WHY)


def _in_a_bucket(address: str, grace: float) -> Iterator[Garbage]:
    """Runs of other machines save there too; one that works saves far more often than once in the grace period.

    What a reproduction keeps lies below a name of its own, and goes at once.
    """
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
            yield Garbage("checkpoint", f"{address.rstrip('/')}/{place}", sum(one.size for one in every), WHY)


def _buckets(settings: Settings) -> Iterator[Uploads]:
    """Where on S3 this project keeps anything."""
    addresses = {f"REMINT_{name.upper()}": getattr(settings, name) for name in PLACES}
    for variable, address in addresses.items():
        if "://" in address:
            from flows.storage import bucket  # not before: boto3 is slow to load, and most keep nothing on S3
            from flows.storage.s3 import S3Bucket
            from flows.storage.uploads import Uploads

            found = bucket.at(address, variable)
            if isinstance(found, S3Bucket):
                yield Uploads(found.bucket, found.prefix.rstrip("/"), variable=variable)
