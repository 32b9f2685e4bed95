"""`remint lineage`: what a model was made from, and what something went into."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from data.core.params import UserError
from flows.console import FAILED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from flows.show.lineage.values import Lineage, Trace

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Show what a model came from, or what contains a thing.")
@click.argument("model", required=False)
@click.option("--data", metavar="DIGEST", help="Every model version that contains this data version.")
@click.option("--photo", metavar="FILE|DIGEST|NAME", help="Every model version that contains this photograph.")
@click.option("--commit", metavar="REV", help="Every model version whose code holds this commit.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on standard output.")
@click.option("--html", metavar="FILE", type=FILE, help="Write a self-contained page with the picture.")
@click.option("--svg", metavar="FILE", type=FILE, help="Write the picture alone.")
def lineage(
    model: str | None,
    data: str | None,
    photo: str | None,
    commit: str | None,
    as_json: bool,
    html: Path | None,
    svg: Path | None,
) -> None:
    """Show what MODEL[@ALIAS|@VERSION] was made from; or, upward, which models contain a thing.

    Down: data versions, code, parameters, environment and parent models, each by digest. MODEL alone is what is in
    production, else the newest version.

    Up: give --data, --photo or --commit instead of a model. A version contains what it was made from and what its
    parents contain, so that a photograph can be withdrawn. What is in production comes first. Digests may be cut.

    \b
    Examples:
      remint lineage maskgit@production
      remint lineage tokenizer@v3 --html lineage.html
      remint lineage --photo holiday/beach.jpg
      remint lineage --commit 1a2b3c4 --json

    \b
    Exit codes:
      0  found
      1  down: something cannot be proved any more (a tag was moved or deleted); up: no model contains it
      2  a mistake in the input (no such model, alias, version, data version, photograph or commit)
    """
    with one_line_errors():
        sys.exit(_lineage(model, {"data": data, "photo": photo, "commit": commit}, as_json, html, svg))


def _lineage(
    model: str | None, things: dict[str, str | None], as_json: bool, html: Path | None, svg: Path | None
) -> int:
    given = [name for name, value in things.items() if value is not None]
    if len(given) + (model is not None) != 1:
        raise UserError("give either a model, as tokenizer@production, or one of --data, --photo and --commit")
    if given and (html or svg):
        raise UserError(f"--{'html' if html else 'svg'} draws a model's lineage; with --{given[0]} use --json")

    from flows import settings
    from flows.catalogue import database

    where = settings.here()
    catalogue = database.open(where)
    with catalogue.read() as session:
        if model is None:
            return _up(_question(session, where.root, things), as_json)
        from flows.catalogue import reference
        from flows.show.lineage import down

        found = down.lineage_of(session, where.root, reference.find(session, model))
    return _down(found, as_json, html, svg)


def _question(session: "Session", root: Path, things: dict[str, str | None]) -> "Trace":
    from flows.show.lineage import up

    ask: dict[str, Callable[[str], Trace]] = {
        "data": lambda digest: up.of_data(session, digest),
        "photo": lambda photo: up.of_photo(session, photo, Path.cwd()),
        "commit": lambda revision: up.of_commit(session, root, revision),
    }
    name, value = next((name, value) for name, value in things.items() if value is not None)
    return ask[name](value)


def _up(found: "Trace", as_json: bool) -> int:
    from flows.show.lineage import words

    if as_json:
        print_json(asdict(found))
    else:
        print(words.trace(found))
    return OK if found.holders else FAILED


def _down(found: "Lineage", as_json: bool, html: Path | None, svg: Path | None) -> int:
    from flows.show.lineage import words
    from flows.show.lineage.values import problems

    if html or svg:
        from flows.show import page
        from flows.show.lineage import picture

        if html:
            say(f"Page: {page.write(html, page.lineage(found))}")
        if svg:
            say(f"Picture: {page.write(svg, picture.draw([found], alone=True))}")
    if as_json:
        print_json(asdict(found))
    elif not (html or svg):
        print(words.text(found))
    wrong = problems(found)
    for problem in wrong:
        say(f"problem: {problem}")
    return FAILED if wrong else OK
