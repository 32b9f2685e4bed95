"""`remint diff`: two releases of a family side by side."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.params import UserError
from flows.console import OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from flows.production.bucket import Bucket

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Compare two releases of a family.")
@click.argument("family")
@click.argument("before", type=int, required=False)
@click.argument("after", type=int, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything but the pictures as JSON on standard output.")
@click.option("--html", metavar="FILE", type=FILE, help="Write a self-contained page, with pictures side by side.")
def diff(family: str, before: int | None, after: int | None, as_json: bool, html: Path | None) -> None:
    """Compare the releases BEFORE and AFTER of FAMILY: models, metrics, parameters, data, code, pictures.

    Without numbers, what is in production and the release before it; with one, that release and what is in
    production. Changes of metrics come with the 95 % interval of the paired difference where both bundles hold values
    per sample; numbers of different evaluations are never held against each other.

    \b
    Examples:
      remint diff images
      remint diff images 3 5 --html diff.html

    \b
    Exit codes:
      0  compared; what could not be reached is named in a note
      2  a mistake in the input (no such family or release), or a bucket whose content was changed
    """
    with one_line_errors():
        sys.exit(_diff(family, before, after, as_json, html))


def _diff(family: str, before: int | None, after: int | None, as_json: bool, html: Path | None) -> int:
    from flows import repository, settings
    from flows.catalogue import database
    from flows.compare import releases, text
    from flows.production import bucket
    from flows.release.promote import check_family

    where = settings.load(repository.find(Path.cwd()).main)
    store = bucket.open(where)
    check_family(where, store, family)
    first, second = (releases.read(store, family, number) for number in _numbers(store, family, before, after))
    catalogue = database.open(where)
    with catalogue.read() as session:
        found = releases.compare(where.root, session, store, first, second)
    if html:
        from flows.compare import page, pictures
        from flows.page import write

        names = releases.evaluations(where.root, first, second)
        shown, notes = pictures.pairs(where.root, first.pointer.commit, second.pointer.commit, names)
        for note in notes:
            say(f"note: {note}")
        say(f"Page: {write(html, page.render(found, shown, notes))}")
    if as_json:
        print_json(asdict(found))
    elif not html:
        print(text.text(found))
    return OK


def _numbers(store: "Bucket", family: str, before: int | None, after: int | None) -> tuple[int, int]:
    """The two releases meant; UserError where there are not two to compare."""
    from flows.production import pointers

    newest = pointers.newest(store, family)
    if newest is None:
        raise UserError(f"{family} was never released: remint promote {family}")
    if before is None and newest.number < 2:
        raise UserError(f"{family} has one release, and nothing to compare it with")
    return (newest.number - 1 if before is None else before, newest.number if after is None else after)
