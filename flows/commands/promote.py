"""`remint promote`: put a family of a recorded run into production."""

import sys
from typing import TYPE_CHECKING

import click

from flows.console import FAILED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.release.promote import FamilyOutcome
    from flows.release.stores import Stores


@click.command(short_help="Release what a recorded run made of a family.")
@click.argument("family")
@click.argument("run", required=False)
@click.option("--why", default="", metavar="TEXT", help="The reason, for the history.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON on standard output.")
def promote(family: str, run: str | None, why: str, as_json: bool) -> None:
    """Release FAMILY (images, depth) as RUN made it; without RUN, as the newest recorded run did.

    All models of the family go to production together if the promotion policy of the commit that is checked out lets
    them all pass, else none does. Nothing is trained; the outputs of the run must be in DVC's cache here.

    \b
    Example: remint promote images 20261121T012434Z-1a2b3c4 --why "sharper edges"

    \b
    Exit codes:
      0    released, or in production already
      1    refused by the gates, waits for approval, or another promotion was first
      2    a mistake (unknown family or run, a tag that was moved, outputs that are not here)
    """
    with one_line_errors():
        from flows.release import of_run, stores

        sys.exit(
            change(lambda at: of_run.promote_run(at, family, run, stores.who(at.settings), why), "promote", as_json)
        )


def change(act: "Callable[[Stores], FamilyOutcome]", name: str, as_json: bool) -> int:
    """Let `act` change what is in production, tell everybody who is to know, and print it; returns the exit code."""
    from flows import settings
    from flows.release import notify, origin, procedure, stores

    chosen = settings.here()
    if chosen.stages == "workers":
        origin.fetch_tags(chosen.root)
    procedure.resume_killed(chosen, say)
    with stores.opened(chosen) as opened:
        outcome = act(opened)
    origin.follow(chosen, outcome)
    notify.tell(chosen, notify.of_family(outcome, name))
    if as_json:
        print_json(outcome.to_json())
    else:
        print(outcome)
    for finding in outcome.left:
        say(str(finding))
    return OK if outcome.state in ("released", "standing") and not outcome.left else FAILED
