"""`remint rollback`: put an earlier release of a family back into production."""

import sys
from typing import TYPE_CHECKING

import click

from flows.console import one_line_errors

if TYPE_CHECKING:
    from flows.release.promote import FamilyOutcome


@click.command(short_help="Put an earlier release back into production.")
@click.argument("family")
@click.option("--to", "number", type=int, metavar="N", help="The release to restore; else the one that stood before.")
@click.option("--why", default="", metavar="TEXT", help="The reason, for the history.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on standard output.")
def rollback(family: str, number: int | None, why: str, as_json: bool) -> None:
    """Put an earlier release of FAMILY back into production, as a new release with the same models.

    Nothing is lost: the release that is taken back stays in the history and can be restored in the same way.

    \b
    Example: remint rollback images --to 2 --why "wires break in #3"

    \b
    Exit codes:
      0    done
      1    another promotion was first, or a place could not follow
      2    a mistake (unknown family or release, nothing to go back to)
    """
    with one_line_errors():
        from flows.commands.promote import change
        from flows.release import rollback, stores
        from flows.release.promote import check_family

        def act(at: stores.Stores) -> "FamilyOutcome":
            check_family(at.settings, at.bucket, family)
            return rollback.rollback(at, family, number, stores.who(at.settings), why)

        sys.exit(change(act, "rollback", as_json))
