"""`remint history`: the releases of a family."""

import click

from flows.console import one_line_errors, print_json


@click.command(short_help="List the releases of a family.")
@click.argument("family")
@click.option("--json", "as_json", is_flag=True, help="Print the releases as JSON on standard output.")
def history(family: str, as_json: bool) -> None:
    """List the releases of FAMILY, the newest first, from the log in the production bucket.

    The log is read whole and its chain of digests verified: an entry that was changed is an error (exit code 2) that
    names it, and so is a log that the catalogue's journal has otherwise.

    \b
    Example: remint history images
    """
    with one_line_errors():
        from flows import settings
        from flows.release import anchors, pointers
        from flows.release.promote import check_family
        from flows.show import status
        from flows.storage import bucket

        chosen = settings.here()
        where = bucket.at(chosen.production)
        check_family(chosen, where, family)
        log = pointers.log(where, family)
        anchors.hold(chosen, family, log)
        if as_json:
            print_json(status.history_json(log))
        else:
            print(status.history(log) if log else f"{family} was never released: remint promote {family}")
