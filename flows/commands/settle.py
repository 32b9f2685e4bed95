"""`remint settle`: close an alarm that somebody has looked into."""

import click

from flows.console import one_line_errors, say


@click.command(short_help="Close an alarm that somebody has looked into.")
@click.argument("number", type=int)
@click.option("--why", required=True, help="What it was, for the journal.")
def settle(number: int, why: str) -> None:
    """Settle the alarm NUMBER of `remint status`: somebody has looked into it and says what it was.

    Who (git's user.name and user.email), why and when go into the journal; the alarm stays there as well.

    \b
    Example: remint settle 17 --why "photos were collected with another Pillow"
    """
    with one_line_errors():
        from flows import settings
        from flows.catalogue import alarms, database
        from flows.release.gates import record

        chosen = settings.here()
        who = record.approver(chosen.root)
        settled = database.open(chosen).write(lambda session: alarms.acknowledge(session, number, who, why))
        say(f"alarm #{number} about {settled.subject} is settled")
