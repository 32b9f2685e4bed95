"""Uploads in parts that a killed process left open on S3: their parts are stored, and no list of objects shows them.

Who uploads may be another machine: only what was begun a day ago, by the server's own clock, is given up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.garbage.place import Garbage, Place
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.storage.uploads import Uploads

KIND = "upload"
LEAST_SECONDS = 86400.0
PLACES = {
    "production": "REMINT_PRODUCTION",
    "checkpoints": "REMINT_CHECKPOINTS",
    "remote": "REMINT_REMOTE",
    "ledger": "REMINT_LEDGER",
}


@contextmanager
def guard(place: Place) -> Iterator[None]:
    yield  # a run of this machine may work: its uploads are younger


def find(place: Place) -> Iterator[Garbage]:
    seen = set()
    for uploads in _places(place.settings):
        for upload in uploads.unfinished():
            what = f"s3://{uploads.bucket}/{upload.key} {upload.id}"
            if upload.age >= max(place.grace, LEAST_SECONDS) and what not in seen:
                seen.add(what)
                yield Garbage(KIND, what, upload.bytes, "begun, and neither finished nor given up")


def delete(place: Place, item: Garbage) -> None:
    name, _, identifier = item.what.rpartition(" ")
    bucket, _, key = name.removeprefix("s3://").partition("/")
    for uploads in _places(place.settings):
        if uploads.bucket == bucket and key.startswith(uploads.prefix):
            uploads.give_up(key, identifier)
            return


def _places(settings: Settings) -> Iterator[Uploads]:
    """Where on S3 this project keeps anything."""
    addresses = {variable: getattr(settings, name) for name, variable in PLACES.items()}
    wanted = {variable: address for variable, address in addresses.items() if "://" in address}
    if wanted:
        from flows.storage import bucket
        from flows.storage.s3 import S3Bucket
        from flows.storage.uploads import Uploads

        for variable, address in wanted.items():
            found = bucket.at(address, variable)
            if isinstance(found, S3Bucket):
                yield Uploads(found.bucket, found.prefix.rstrip("/"), variable=variable)
