"""`remint status`: what is in production, and what asks for attention."""

import click

from flows.console import one_line_errors, print_json


@click.command(short_help="Show production, what waits, alarms, the last runs.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on standard output.")
def status(as_json: bool) -> None:
    """Show what is in production, what waits for approval or is unfinished, open alarms, and the last runs.

    Of each model in production: its version, its headline metric, and how its last reproduction ended. Everything is
    read from the catalogue; `remint doctor` says whether bucket, registry and git agree with it.

    \b
    Example: remint status
    """
    with one_line_errors():
        from flows import settings
        from flows.catalogue import database
        from flows.pipeline import families
        from flows.show import status as state

        chosen = settings.here()
        graph = chosen.root / "dvc.yaml"
        known = [model.family for model in families.models_of(chosen.root)] if graph.exists() else []
        with database.open(chosen).read() as session:
            found = state.read(session, known)
        if as_json:
            print_json(state.to_json(found))
        else:
            print(state.text(found))
