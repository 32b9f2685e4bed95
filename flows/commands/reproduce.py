"""`remint reproduce`: make a model again from its tag and prove that it is the same."""

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.console import FAILED, MISTAKE, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from flows.reproduce.compare import Tolerance
    from flows.reproduce.remake import Source
    from flows.reproduce.run import Reproduction
    from flows.settings import Settings

WITHIN = 3  # the exit code of "same within tolerance"
SIZE = click.FloatRange(min=0)
LISTED = 5  # uncommitted paths named before they are counted


@click.command(short_help="Make a model again from its tag, prove it the same.")
@click.argument("model", required=False, metavar="[MODEL[@ALIAS|@VERSION]]")
@click.option("--all", "every", is_flag=True, help="Every model in production; those of one run together.")
@click.option(
    "--from",
    "source",
    type=click.Choice(["scratch", "inputs"]),
    default="scratch",
    show_default=True,
    help="scratch: every stage from the first on; inputs: only the model's own, on its recorded inputs.",
)
@click.option("--tensors", type=SIZE, default=1e-3, show_default=True, help="Tolerance of each tensor, by its norm.")
@click.option("--metrics", type=SIZE, default=1e-2, show_default=True, help="Tolerance of each metric, by its value.")
@click.option("--stages", type=click.Choice(["here", "workers"]), help="Where stages run, instead of REMINT_STAGES.")
@click.option("--json", "as_json", is_flag=True, help="Print the proof as JSON on standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Show Prefect's own messages too.")
def reproduce(
    model: str | None,
    every: bool,
    source: "Source",
    tensors: float,
    metrics: float,
    stages: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Make MODEL again from its tag and prove that it is the same.

    The stages run at the tag's commit in a worktree of their own, with an empty cache, and every output is compared
    with the digest that the commit's dvc.lock records. Any clone can do this: git is enough. Only a machine of the
    same class can give the same bytes; how this one differs is said before anything runs.

    With REMINT_STAGES=workers each stage runs on a worker of its pool: whatever is known of it, from its first step on,
    with thread counts as they were. How the worker differs from the one that made the model is said at the end.

    \b
      remint reproduce tokenizer@production
      remint reproduce depth-small@v2 --from inputs
      remint reproduce maskgit@v3 --stages workers
      remint reproduce --all --json

    \b
    The verdict, and the exit code:
      0    identical: every output has the recorded digest
      3    same within tolerance: other bytes, but from the same code, parameters and sources came weights and
           metrics that lie within --tensors and --metrics
      1    different, naming the first stage; or a stage failed
      2    a mistake in the input (unknown model, a tag that was moved, other packages than the lock's, a pool that
           nobody serves)
      130  interrupted; the same command goes on where it stopped
    """
    if verbose:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"
    if stages:
        os.environ["REMINT_STAGES"] = stages
    with one_line_errors("remint reproduce"):
        if (model is None) == (not every):
            raise click.UsageError("name a MODEL, such as tokenizer@production, or give --all")
        from flows import repository, settings
        from flows.release import procedure
        from flows.reproduce.compare import Tolerance

        checkout = repository.find(Path.cwd())
        _say_uncommitted(checkout.uncommitted)
        chosen, tolerance = settings.load(checkout.main), Tolerance(tensors, metrics)
        procedure.resume_killed_here(chosen, say)
        if every:
            done, refused = _all(chosen, source, tolerance)
        else:
            done, refused = [_one(chosen, str(model), source, tolerance)], []
        for line in refused:
            say(f"error: {line}")
        code = _close(done, every, as_json)
        sys.exit(MISTAKE if refused and code == OK else code)


def _one(settings: "Settings", reference: str, source: "Source", tolerance: "Tolerance") -> "Reproduction":
    from flows.reproduce import run, target
    from flows.retrain import progress

    with progress.console() as shown:
        return run.reproduce(settings, [target.resolve(settings, reference)], source, tolerance, shown)


def _all(settings: "Settings", source: "Source", tolerance: "Tolerance") -> tuple[list["Reproduction"], list[str]]:
    """Run the flow of all of them, with a server for it."""
    from flows.server import connect
    from flows.settings import child_environment

    environment = child_environment(settings)
    os.environ.update(environment)
    done: list[Reproduction] = []
    refused: list[str] = []
    with connect.borrowed(settings, environment) as api:
        os.environ["PREFECT_API_URL"] = api
        from flows.reproduce import every  # not before: it imports Prefect

        with contextlib.suppress(every.NotReproduced):
            every.reproduce_production(str(settings.root), source, tolerance, done, refused)
    return done, refused


def _close(done: list["Reproduction"], every: bool, as_json: bool) -> int:
    from flows.reproduce import compare, report

    for one in done:
        for failure in one.failures:
            say(f"\n{failure}. Its last lines:")
            for line in failure.tail():
                say(f"    {line}")
            say(f"All of it: {failure.log}")
        for line in one.unrecorded:
            say(line)
    if as_json:
        proofs = [report.to_json(one.proof) for one in done]
        print_json(proofs if every else proofs[0])
    else:
        print("\n\n".join(report.text(one.proof) for one in done))
    verdict = compare.worst([one.proof.verdict for one in done])
    return {compare.IDENTICAL: OK, compare.WITHIN: WITHIN}.get(verdict, FAILED)


def _say_uncommitted(paths: tuple[str, ...]) -> None:
    if paths:
        rest = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
        say(f"The tag's commit is what runs. Uncommitted here, so not part of it: {', '.join(paths[:LISTED])}{rest}.")
