"""`remint deploy`: put work pools and scheduled flows onto the Prefect server."""

from pathlib import Path

import click

from flows.console import one_line_errors, print_json, say


@click.command(short_help="Put work pools and scheduled flows onto the server.")
@click.option("--prune", is_flag=True, help="Remove flows that were deployed before and the file no longer names.")
@click.option("--json", "as_json", is_flag=True, help="Print what became of each entry as JSON on standard output.")
def deploy(prune: bool, as_json: bool) -> None:
    """Bring the Prefect server of REMINT_PREFECT_API to what infra/prefect.yaml declares: work pools, the deployments
    of stages and of flows that start by themselves, and the automation that notices dead workers.

    May be repeated: what is as declared is left alone, what differs is updated, a schedule that somebody paused stays
    paused. Nothing is removed without --prune.

    \b
    Examples:
      REMINT_PREFECT_API=http://127.0.0.1:4200/api remint deploy
      remint schedule list
      remint worker --pool flows       runs what is deployed
    \b
    Exit codes:
      0  everything is as declared now
      2  a mistake in the file, or a server that does not answer
    """
    with one_line_errors("remint deploy"):
        from flows import repository, settings
        from flows.schedules import client, declared
        from flows.show.columns import columns

        checkout = repository.find(Path.cwd())
        chosen = settings.load(checkout.main)
        path = checkout.top / declared.FILE
        client.prepare(chosen)
        wanted = declared.read(path)
        with client.opened(chosen) as api:
            from flows.schedules.deploy import apply  # not before: it imports Prefect

            changes = list(apply(api, wanted, path, prune=prune))
        if as_json:
            print_json([change.to_json() for change in changes])
        else:
            rows = [(change.kind, change.name, change.done, change.what) for change in changes]
            print(columns(rows, headed=False))
        left = [change.name for change in changes if change.done == "not declared"]
        if left:
            say(f"Still deployed, but not in {declared.FILE}: {', '.join(left)}. To remove: remint deploy --prune")
