"""`remint schedule`: the flows that start by themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from flows.console import one_line_errors, print_json

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from flows.schedules.schedule import Scheduled

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")


@click.group(short_help="List, pause, resume or start scheduled flows.")
def schedule() -> None:
    """The flows that start by themselves, as `remint deploy` put them onto the Prefect server.

    \b
    Examples:
      remint schedule list
      remint schedule pause nightly
      remint schedule run-now watch
    \b
    Exit codes:
      0  done
      2  a mistake in the input: no such schedule, no worker to run it, a server that does not answer
    """


@schedule.command("list")
@AS_JSON
def list_(as_json: bool) -> None:
    """What starts when, and how it ended last."""
    with _server() as api:
        from flows.schedules import schedule

        _show(schedule.every(api), as_json)


@schedule.command()
@click.argument("name")
@AS_JSON
def pause(name: str, as_json: bool) -> None:
    """Do not start NAME by its schedule any more; one that is running runs on."""
    with _server() as api:
        from flows.schedules import schedule

        _show([schedule.pause(api, name)], as_json)


@schedule.command()
@click.argument("name")
@AS_JSON
def resume(name: str, as_json: bool) -> None:
    """Start NAME by its schedule again."""
    with _server() as api:
        from flows.schedules import schedule

        _show([schedule.resume(api, name)], as_json)


@schedule.command("run-now")
@click.argument("name")
@AS_JSON
def run_now(name: str, as_json: bool) -> None:
    """Start NAME now, on a worker of its pool; its schedule goes on as before."""
    with _server() as api:
        from flows.schedules import schedule

        title, identifier = schedule.run_now(api, name)
        if as_json:
            print_json({"name": name, "flow_run": title, "id": identifier})
        else:
            print(f"{name} starts as {title} ({identifier})")


@contextmanager
def _server() -> "Iterator[SyncPrefectClient]":
    with one_line_errors("remint schedule"):
        from flows import settings
        from flows.schedules import client

        with client.opened(settings.here()) as api:
            yield api


def _show(found: "list[Scheduled]", as_json: bool) -> None:
    from flows.show.columns import columns

    if as_json:
        print_json([one.to_json() for one in found])
        return
    if not found:
        print("Nothing is deployed: remint deploy")
        return
    rows = [("name", "schedule", "pool", "next", "last")]
    for one in found:
        coming = "paused" if one.paused else f"{one.next:%Y-%m-%d %H:%M} UTC" if one.next else "on request"
        last = f"{one.last_state}, {one.last:%Y-%m-%d %H:%M} UTC" if one.last else "never"
        rows.append((one.name, one.schedule, one.pool, coming, last))
    print(columns(rows))
