"""`remint watch`: take in photographs that arrived, and retrain when they are many or differ."""

import sys
from typing import TYPE_CHECKING

import click

from flows.arrivals.thresholds import Thresholds
from flows.console import FAILED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from flows.arrivals.batches import Batch


@click.command(short_help="Take in new photographs; retrain when it is time.", context_settings={"show_default": True})
@click.option("--at-least", metavar="N", default=Thresholds.at_least, help="So many new ones start a run.")
@click.option("--shift", default=Thresholds.shift, help="So does a population stability index.")
@click.option("--confusion", default=Thresholds.confusion, help="So does a depth student at a loss.")
@click.option("--retrain/--no-retrain", default=True, help="Start the run, or only say that it would be started.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON on standard output.")
def watch(at_least: int, shift: float, confusion: float, retrain: bool, as_json: bool) -> None:
    """Look once at REMINT_INCOMING, a folder or s3://bucket/prefix, and take in each photograph that is new by its
    bytes: a renamed copy is not, other bytes under a known name are. Files that are no photographs are named with the
    reason. A run is started when enough arrived since the newest one, or when they are unlike those that production
    was made from. `remint deploy` has this done every hour.

    \b
    Examples:
      REMINT_INCOMING=s3://photos/inbox remint watch --no-retrain
      REMINT_INCOMING=inbox remint watch --at-least 500
    \b
    Exit codes:
      0  done; what was started went well
      1  the run that was started failed
      2  a mistake in the input: no such place, no access to it, an impossible threshold
    """
    with one_line_errors("remint watch"):
        from flows import settings
        from flows.arrivals import watch as arrivals
        from flows.schedules import started

        chosen = settings.here()

        def told(batch: "Batch") -> None:
            say(f"batch {batch.number}: {batch.arrived} new photographs, {len(batch.aside)} set aside")

        seen = arrivals.look(chosen, Thresholds(at_least, shift, confusion), told)
        if as_json:
            print_json(seen.to_json())
        else:
            print("\n".join(arrivals.lines(seen)))
        if seen.decision is None or not retrain:
            sys.exit(OK)
        try:
            say(started.words(started.follow(chosen, seen, say)))
        except started.NotRetrained as error:
            say(f"error: {error}")
            sys.exit(FAILED)
