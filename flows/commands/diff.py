"""`remint diff`: two releases of a family, or production and a candidate, side by side."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.core.params import UserError
from flows.console import OK, one_line_errors, print_json, say
from flows.pipeline.reference import PRODUCTION

if TYPE_CHECKING:
    from flows.release.stores import Stores
    from flows.show.diff.releases import Bundles
    from flows.storage.protocol import Bucket

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Compare two releases, or production with a candidate.")
@click.argument("family")
@click.argument("before", required=False)
@click.argument("after", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything but the pictures as JSON on standard output.")
@click.option("--html", metavar="FILE", type=FILE, help="Write a self-contained page, with pictures side by side.")
def diff(family: str, before: str | None, after: str | None, as_json: bool, html: Path | None) -> None:
    """Compare BEFORE and AFTER of FAMILY: models, metrics, parameters, data, code, pictures.

    Each is a release (its number, or "production") or a run, whose models need not be released: so a candidate is
    looked at before it is approved. Without any, what is in production and the release before it; with one release,
    that and what is in production; with one run, what is in production and that run.

    Changes of metrics come with the 95 % interval of the paired difference where both hold values per sample; numbers
    of different evaluations are never held against each other.

    \b
    Examples:
      remint diff images
      remint diff images 3 5 --html diff.html
      remint diff images production 20261121T012434Z-1a2b3c4 --html diff.html

    \b
    Exit codes:
      0  compared; what could not be reached is named in a note
      2  a mistake in the input (no such family, release or run), or a bucket whose content was changed
    """
    with one_line_errors():
        sys.exit(_diff(family, before, after, as_json, html))


def _diff(family: str, before: str | None, after: str | None, as_json: bool, html: Path | None) -> int:
    from flows import settings
    from flows.release import stores
    from flows.release.promote import check_family
    from flows.show.diff import comparison, releases

    where = settings.here()
    with stores.opened(where) as places, ExitStack() as stack:
        check_family(where, places.bucket, family)
        first, second = (
            stack.enter_context(_side(places, family, one)) for one in _sides(places.bucket, family, before, after)
        )
        with places.catalogue.read() as session:
            found = releases.compare(where.root, session, places.bucket, first, second)
        if html:
            from flows.show import page
            from flows.show.diff import commits

            names = releases.evaluations(where.root, first, second)
            shown, notes = commits.pairs(where.root, found.before.commit, found.after.commit, names)
            for note in notes:
                say(f"note: {note}")
            say(f"Page: {page.write(html.absolute(), page.compared(found, shown, notes))}")
    if as_json:
        print_json(asdict(found))
    elif not html:
        print(comparison.text(found))
    return OK


@contextmanager
def _side(places: "Stores", family: str, named: str) -> "Iterator[Bundles]":
    from flows.show.diff import releases

    if named.isdecimal():
        yield releases.read(places.bucket, family, int(named))
    else:
        with releases.candidate(places, family, named) as found:
            yield found


def _sides(bucket: "Bucket", family: str, before: str | None, after: str | None) -> tuple[str, str]:
    """The two that are meant, each a release's number or a run; UserError where there are not two to compare."""
    from flows.release import pointers

    newest = pointers.newest(bucket, family)
    production = str(newest.number) if newest else None
    if before is None and newest is not None and newest.number < 2:
        raise UserError(f"{family} has one release, and nothing to compare it with; name a run")
    if after is None and before is not None and not before.isdecimal() and before != PRODUCTION:
        before, after = PRODUCTION, before
    asked = (str(newest.number - 1) if newest and before is None else before, after or PRODUCTION)
    if newest is None and any(one in (None, PRODUCTION) or one.isdecimal() for one in asked):
        raise UserError(f"{family} was never released: remint promote {family}")
    first, second = (production if one == PRODUCTION else one for one in asked)
    return str(first), str(second)
