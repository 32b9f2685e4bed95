"""`remint ui`: the pages."""

import click

from flows.console import one_line_errors


@click.command(short_help="Start MLflow's and Prefect's pages.")
def ui() -> None:
    """Start MLflow's and Prefect's pages on localhost and print their addresses; Ctrl-C ends both."""
    with one_line_errors():
        from flows import settings
        from flows.server import pages

        pages.serve(settings.here())
