"""`remint stack`: PostgreSQL, S3, MLflow, Prefect and workers on this machine, without containers."""

from typing import TYPE_CHECKING

import click

from flows.console import FAILED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from infra.stack.native import Stack


@click.group(short_help="Start or end the stack on this machine, without containers.")
def stack() -> None:
    """The stack of docker-compose.yml as processes of this machine: PostgreSQL, S3, MLflow, Prefect, workers.

    \b
    Examples:
      remint stack up          the same as make stack
      remint stack status
      remint stack down        the same as make stack-down; what it holds stays in .remint/stack
    """


@stack.command(short_help="Start it.")
@click.option(
    "--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes for each pool of stages."
)
@click.option("--profile", type=click.Choice(["gpu", "nogpu"]), help="Who serves pool gpu; default: GPUs if there are.")
def up(workers: int, profile: str | None) -> None:
    """Start what does not run yet, and print addresses and what to do next. It takes about a minute.

    Needs PostgreSQL and Ceph's object gateway: Debian's packages, which it names if they are missing.
    """
    with one_line_errors("remint stack up"):
        from infra.stack import native

        found = _here()
        found.up(workers, profile or native.profile(), say)
        print(native.how_to_use(found))


@stack.command(short_help="End it.")
def down() -> None:
    """End every process of the stack: workers first, who give back what they work on. What it holds stays."""
    with one_line_errors("remint stack down"):
        _here().down(say)


@stack.command(short_help="Show its processes.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON on standard output.")
@click.pass_context
def status(context: click.Context, as_json: bool) -> None:
    """Show each process of the stack: whether it runs, where it answers. Exit code 1 if one has ended."""
    with one_line_errors("remint stack status"):
        from flows.show.columns import columns

        rows = _here().status()
        if as_json:
            print_json(rows)
        elif rows:
            print(columns([tuple(row.values()) for row in rows], headed=False))
        else:
            say("the stack does not run; start it: make stack")
        context.exit(FAILED if any(row["state"] != "runs" for row in rows) else OK)


@stack.command(short_help="Print the variables of one of its users.")
@click.argument("user", type=click.Choice(["releaser", "worker", "reader", "photographer"]))
@click.option("--host", metavar="NAME", help="The stack's machine as seen from there; default: this machine.")
@click.option("--domain", metavar="NAME", help="The stack is behind a proxy: https://mlflow.NAME, https://s3.NAME, ...")
def env(user: str, host: str | None, domain: str | None) -> None:
    """Print what one of its users has in the environment, as lines NAME=value. They hold passwords.

    \b
    Examples:
      remint stack env releaser > releaser.env && set -a && . ./releaser.env && set +a
      remint stack env worker --domain remint.example.org > worker.env     for a machine with GPUs
      remint stack env photographer > bring.env                            for who puts photographs into REMINT_INCOMING
    """
    with one_line_errors("remint stack env"):
        from infra.stack import uses

        found = _here()
        if domain:
            outside = uses.at_domain(domain)
        elif host or not found.is_here:
            outside = uses.at_host(host or "127.0.0.1")
        else:
            outside = found.places().address
        click.echo(uses.text(uses.variables(found.root, found.secrets, user, outside)), nl=False)


@stack.command(short_help="Make what its servers must hold: buckets, users, tables, pools.")
def bootstrap() -> None:
    """Make buckets, MLflow's users, the catalogue's tables, Prefect's work pools and schedules, where they are missing.

    The job `bootstrap` of docker-compose.yml; `remint stack up` does it too. It wants the administrator's keys in the
    environment: .secrets/bootstrap.env.
    """
    with one_line_errors("remint stack bootstrap"):
        from flows import settings
        from infra.stack import bootstrap as job

        for line in job.run(settings.here()):
            print(f"bootstrap: {line}", flush=True)


def _here() -> "Stack":
    from flows import settings
    from infra.stack import native

    return native.of(settings.here())
