"""`remint worker`: serve a pool of stages, or the flows that order them, from this machine."""

import sys
from pathlib import Path

import click

from flows.console import one_line_errors


@click.command(short_help="Serve a pool of stages from this machine.")
@click.option("--pool", required=True, metavar="NAME", help="cpu, gpu (stages) or flows (the flows that order them).")
@click.option("--name", metavar="NAME", help="How others see it; default: host, pool and process.")
@click.option("--devices", "--device", default="", metavar="0,1|cpu", help="GPUs for its stages; default: all.")
def worker(pool: str, name: str | None, devices: str) -> None:
    """Take stages of a pool, one at a time, run them at their run's commit, and hand their outputs on.

    Runs in a clone of the repository, whose origin has the runs' commits: it checks the machine, and then starts
    Prefect's own worker (prefect worker start). Ends on SIGTERM or Ctrl-C within 25 s; its stage writes a checkpoint
    and goes on elsewhere. For several stages at once start one worker for each GPU.

    \b
    Examples:
      remint worker --pool gpu                     all GPUs for each stage
      remint worker --pool gpu --devices 1         GPU 1; a second worker may have GPU 0
      remint worker --pool gpu --devices cpu       serves the pool gpu with the processor, as small stacks do
      remint worker --pool flows                   the orchestrating flows: schedules and triggers

    \b
    Reads: REMINT_PREFECT_API, REMINT_LEDGER, REMINT_REMOTE, REMINT_CHECKPOINTS, REMINT_MLFLOW_URI (REMINT_CATALOGUE
    for flows), REMINT_CACHE, REMINT_CACHE_GB, REMINT_ALLOWED; AWS_*, PREFECT_API_AUTH_STRING,
    MLFLOW_TRACKING_USERNAME, ...

    \b
    Exit codes: 0 it was asked to end, 2 a mistake in the input or a server that does not answer at the start
    """
    with one_line_errors("remint worker"):
        from flows.workers import serve

        code = serve.serve(Path.cwd(), pool, name, devices)
    sys.exit(code)
