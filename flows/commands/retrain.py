"""`remint retrain`: run the graph, or show what would run."""

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.console import FAILED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from flows.finish import Release
    from flows.job import Job
    from flows.retrain import Outcome
    from flows.run import RunInfo, StageResult

LISTED = 5  # uncommitted paths named before they are counted


@click.command(short_help="Run the graph: train, evaluate, register, release, tag.")
@click.option("--recipe", metavar="NAME", help="Parameters from models/recipes/NAME.yaml over params.yaml.")
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True, help="One parameter; may be repeated.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would run and why, and run nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan or the result as JSON on standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Show Prefect's own messages too.")
def retrain(recipe: str | None, assignments: tuple[str, ...], plan_only: bool, as_json: bool, verbose: bool) -> None:
    """Bring every stage of dvc.yaml up to date from HEAD; evaluate, register, release and tag what came out.

    The run works in a worktree of its own: your checkout is not touched, and uncommitted changes are not part of
    the run. Results are recorded in a commit under the tag run/<time>-<commit>.

    \b
    Exit codes:
      0    done, or nothing to do
      1    a stage failed, or its results could not be registered; what finished is kept for the next run
      2    a mistake in the input (unknown parameter, no commit, a server that does not answer, full disk)
      130  interrupted; `remint retrain` goes on where it stopped
    """
    if verbose:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"
    with one_line_errors():
        from flows import job

        with job.prepared(Path.cwd(), recipe, assignments) as ready:
            sys.exit(_show(ready, as_json) if plan_only else _retrain(ready, as_json))


def _show(ready: "Job", as_json: bool) -> int:
    """Print a plan."""
    from flows import table

    _say_uncommitted(ready)
    if as_json:
        print_json({"commit": ready.run.base_commit, "parameters": ready.changes, "plan": ready.plan.to_json()})
    else:
        print(table.plan_text(ready.plan))
    return OK


def _retrain(ready: "Job", as_json: bool) -> int:
    """Run what the plan says, and print what came of it."""
    from flows import finish, launch, progress, repository
    from flows.release import start
    from flows.run import StageResult

    began = time.monotonic()
    _say_uncommitted(ready)
    start.clear(ready.settings, say)
    launch.check(ready)
    newest = repository.newest_run(ready.settings.root)
    left = finish.unfinished(ready.settings, newest)
    if ready.plan.empty and left is None:
        results = [StageResult(stage.name, "current", 0.0) for stage in ready.stages]
        if as_json:
            print_json(_summary(None, results, finish.Release(), None, time.monotonic() - began))
        else:
            print(f"Nothing to do: all {len(ready.stages)} stages are as {newest or 'dvc.lock'} records them.")
        return OK
    start.check(ready.settings, say)
    with progress.console() as shown:
        if left is not None and ready.plan.empty and launch.same_work(ready, left):
            done, release, page = launch.complete(ready, left, shown)
            return _close(left.run, done.values(), release, page, as_json, began)
        outcome = launch.run(ready, shown)
    if outcome.failures:
        return _say_failures(ready, outcome)
    return _close(outcome.run, outcome.results.values(), outcome.release, outcome.report, as_json, began)


def _close(
    run: "RunInfo",
    results: Iterable["StageResult"],
    release: "Release",
    page: Path | None,
    as_json: bool,
    began: float,
) -> int:
    """Print the end of a run that went well."""
    from flows import table

    results = list(results)
    seconds = time.monotonic() - began
    if as_json:
        print_json(_summary(run, results, release, page, seconds))
        return OK
    print(table.text(table.rows(results, release)))
    for line in table.release_lines(release):
        print(line)
    print(f"Recorded as {run.tag} in {seconds:.0f} s.")
    print(f"To have its outputs here: git checkout {run.tag} -- dvc.lock params.yaml && dvc checkout")
    if page:
        print(f"Report: {page}")
    return OK


def _summary(
    run: "RunInfo | None", results: list["StageResult"], release: "Release", page: Path | None, seconds: float
) -> dict[str, Any]:
    from flows import table

    return {
        "run": run.id if run else None,
        "tag": run.tag if run else None,
        "commit": run.commit if run else None,
        "seconds": round(seconds, 1),
        "stages": table.to_json(table.rows(results, release)),
        "models": [
            {"model": d.model, "version": d.version, "verdict": d.verdict, "reason": d.reason}
            for d in release.decisions
        ],
        "families": [outcome.to_json() for outcome in release.outcomes],
        "alarms": [str(alarm) for alarm in release.alarms],
        "report": str(page) if page else None,
    }


def _say_failures(ready: "Job", outcome: "Outcome") -> int:
    """Say of each failed stage why, with its last lines, and what was not run because of it."""
    for failure in outcome.failures.values():
        say(f"\n{failure}. Its last lines:")
        for line in failure.tail():
            say(f"    {line}")
        say(f"All of it: {failure.log}")
    skipped = [s.name for s in ready.stages if s.name not in outcome.results and s.name not in outcome.failures]
    if skipped:
        say(f"Not run: {', '.join(skipped)}.")
    say("What finished is kept: correct the cause, and `remint retrain` goes on from there.")
    return FAILED


def _say_uncommitted(ready: "Job") -> None:
    paths = ready.checkout.uncommitted
    if paths:
        rest = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
        say(
            f"Commit {ready.run.base_commit[:7]} is what runs. Uncommitted, so not part of it: "
            f"{', '.join(paths[:LISTED])}{rest}."
        )
