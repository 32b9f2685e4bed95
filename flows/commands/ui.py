"""`remint ui`: the pages."""

from pathlib import Path

import click

from flows.console import one_line_errors


@click.command(short_help="Start MLflow's and Prefect's pages.")
def ui() -> None:
    """Start MLflow's and Prefect's pages on localhost and print their addresses; Ctrl-C ends both."""
    with one_line_errors():
        from flows import repository, settings
        from flows.server import pages

        pages.serve(settings.load(repository.find(Path.cwd()).main))
