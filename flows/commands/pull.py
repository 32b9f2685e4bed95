"""`remint pull`: a release from production into a folder."""

import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.core.params import UserError, near
from flows.console import INTERRUPTED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from flows.release.pull import Hold, Pulled
    from flows.storage.protocol import Bucket


@click.command(short_help="Bring a release into a folder, every digest verified.")
@click.argument("release", metavar="FAMILY@production|FAMILY@N")
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what is now there as JSON on standard output.")
def pull(release: str, directory: Path, as_json: bool) -> None:
    """Bring a whole release into DIR, every digest verified: release.json and a folder for each of its models.

    DIR then holds the release, or after a failure what it held before. A broken pull is kept in DIR.partial, and the
    same command goes on with it. A release in DIR is replaced in one step; anything else in DIR is refused.

    No clone is needed where REMINT_PRODUCTION names a bucket or a folder:

    \b
      export REMINT_PRODUCTION=s3://models/remint AWS_ENDPOINT_URL=... AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...
      remint pull images@production models/images
      remint pull images@12 models/images

    \b
    Exit codes:
      0    the release is in DIR
      2    it is not: no such release, a store that does not answer, a wrong digest, a full disk
      130  interrupted; the same command goes on
    """
    with one_line_errors():
        family, number = parse(release)
        try:
            began = time.monotonic()
            done = _pull(production(), held_against(family), family, number, directory)
        except KeyboardInterrupt:
            say(f"Interrupted. What has arrived is kept in {directory}.partial; the same command goes on.")
            sys.exit(INTERRUPTED)
        _show(done, as_json, time.monotonic() - began)
        sys.exit(OK)


def parse(release: str) -> tuple[str, int | None]:
    """("images", None) of "images@production", ("images", 12) of "images@12"."""
    family, _, which = release.partition("@")
    if which in ("", "production"):
        return family, None
    if re.fullmatch(r"[1-9][0-9]{0,8}", which):
        return family, int(which)
    raise UserError(f"{release}: name a release as {family}@production or {family}@12{near(which, ['production'])}")


def production() -> "Bucket":
    """Where releases are: REMINT_PRODUCTION, else the clone around this folder."""
    from flows.storage import bucket

    address = os.environ.get("REMINT_PRODUCTION", "")
    if "://" in address or Path(address).expanduser().is_absolute():
        return bucket.at(address)
    from flows import settings

    try:
        return bucket.at(settings.here().production)
    except UserError as error:
        raise UserError(f"{error}; or say where production is: REMINT_PRODUCTION=s3://bucket/prefix") from None


def held_against(family: str) -> "Hold":
    """How the log is held against the journal that knows its releases; not at all where no clone's journal does.

    Without REMINT_CATALOGUE a clone's own knows only its own releases, not those at an address from elsewhere.
    """
    if "REMINT_PRODUCTION" in os.environ and "REMINT_CATALOGUE" not in os.environ:
        return lambda log: None
    from flows import settings
    from flows.release import anchors

    try:
        chosen = settings.here()
    except UserError:  # no clone
        return lambda log: None
    return lambda log: anchors.hold(chosen, family, log)


def _pull(bucket: "Bucket", hold: "Hold", family: str, number: int | None, directory: Path) -> "Pulled":
    from tqdm import tqdm

    from flows.release.pull import pull

    with tqdm(unit="B", unit_scale=True, desc=family, leave=False, delay=1, disable=None) as bar:

        def shown(done: int, size: int) -> None:
            bar.total = size
            bar.update(done - bar.n)

        return pull(bucket, family, number, directory, shown, hold)


def _show(done: "Pulled", as_json: bool, seconds: float) -> None:
    pointer = done.pointer
    if as_json:
        print_json(
            {
                "family": pointer.family,
                "number": pointer.number,
                "folder": str(done.folder),
                "new": done.new,
                "bytes": done.size,
                "seconds": round(seconds, 1),
                "models": [
                    {"model": m.model, "version": m.version, "tag": m.tag, "weights": m.weights}
                    for m in pointer.members
                ],
            }
        )
        return
    for member in pointer.members:
        print(f"{member.model:16} v{member.version:<5} weights {member.weights[:12]}  {done.folder / member.model}")
    verb = "is now" if done.new else "was already"
    print(
        f"{pointer.family}@{pointer.number} {verb} in {done.folder}: {done.size / 1e6:,.1f} MB, every digest verified."
    )
