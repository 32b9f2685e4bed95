"""`remint retrain`: run the graph, or show what would run."""

import os
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from data.core.params import UserError
from flows.console import FAILED, OK, one_line_errors, print_json, say

if TYPE_CHECKING:
    from flows.pipeline.job import Job
    from flows.pipeline.run import RunInfo, StageResult
    from flows.release.outcome import Release, RunOutcome

LISTED = 5  # uncommitted paths named before they are counted


@click.command(short_help="Run the graph: train, evaluate, register, release, tag.")
@click.option("--recipe", metavar="NAME", help="Parameters from models/recipes/NAME.yaml over params.yaml.")
@click.option("--set", "assignments", metavar="KEY=VALUE", multiple=True, help="One parameter; may be repeated.")
@click.option("--stages", type=click.Choice(["here", "workers"]), help="Where stages run, instead of REMINT_STAGES.")
@click.option("--plan", "plan_only", is_flag=True, help="Print what would run and why, and run nothing.")
@click.option("--budget", metavar="TIME", help="Stop before more is spent: '2h', '30m gpu', '2h, 30m gpu, 4h cpu'.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan or the result as JSON on standard output.")
@click.option("-v", "--verbose", is_flag=True, help="Show Prefect's own messages too.")
def retrain(
    recipe: str | None,
    assignments: tuple[str, ...],
    stages: str | None,
    plan_only: bool,
    budget: str | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Bring every stage of dvc.yaml up to date from HEAD; evaluate, register, release and tag what came out.

    The run works in a worktree of its own: your checkout is not touched, and uncommitted changes are not part of
    the run. Results are recorded in a commit under the tag run/<time>-<commit>.

    A budget limits what the stages of this run take together, also those that work at once: an amount of time as 2h,
    1h30m or 90s, of machines or, with the word behind it, of cpu or gpu; several with commas between. A stage starts
    only if what it took the last time still fits; one that works is asked to write its checkpoint and end shortly
    before the limit. A limit of gpu time stops only stages that hold GPUs.

    \b
    Examples:
      remint retrain --plan
      remint retrain --recipe evening --budget 2h
      remint retrain --stages workers
      remint retrain --budget '8h, 30m gpu'

    \b
    Exit codes:
      0    done, or nothing to do
      1    a stage failed, its results could not be registered, or the budget ended; what finished is kept, and
           `remint retrain` goes on from there
      2    a mistake in the input (unknown parameter, no commit, a server that does not answer, full disk)
      130  interrupted; `remint retrain` goes on where it stopped
    """
    if verbose:
        os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "INFO"
    if stages:
        os.environ["REMINT_STAGES"] = stages
    with one_line_errors():
        from flows.retrain import job
        from flows.stage import budget as budgets

        limit = budgets.parse(budget) if budget is not None else budgets.Budget()
        with job.prepared(Path.cwd(), recipe, assignments) as prepared:
            ready = _estimated(replace(prepared, budget=limit), plan_only)
            sys.exit(_show(ready, as_json) if plan_only else _retrain(ready, as_json))


def _estimated(ready: "Job", plan_only: bool) -> "Job":
    """The job with what its stages are likely to cost, where that is asked for; a plan does without."""
    if not (plan_only or ready.budget.limits):
        return ready
    from flows.show import cost

    try:
        return replace(ready, estimates=cost.estimates(ready.settings, ready.run, ready.stages, ready.plan))
    except UserError as error:
        if not plan_only:
            raise
        say(f"what stages are likely to cost is not known: {error}")
        return ready


def _show(ready: "Job", as_json: bool) -> int:
    """Print a plan."""
    from flows.pipeline import run_record
    from flows.show import table

    _say_uncommitted(ready)
    for left in run_record.unfinished(ready.settings):
        say(f"run {left.run.id} was interrupted before its models were released: the next run completes it first")
    if as_json:
        print_json(_plan(ready))
    else:
        print(table.plan_text(ready.plan, ready.estimates))
    return OK


def _plan(ready: "Job") -> dict[str, Any]:
    """The plan as plain values: a stage has an estimate if it is to run and did so before."""
    from flows.stage.spending import total

    known = {name: {**asdict(one.usage), "run": one.run, "steps": one.steps} for name, one in ready.estimates.items()}
    steps = [{**step, "estimate": known.get(step["stage"])} for step in ready.plan.to_json()]
    estimate = asdict(total(one.usage for one in ready.estimates.values())) if known else None
    return {"commit": ready.run.base_commit, "parameters": ready.changes, "plan": steps, "estimate": estimate}


def _retrain(ready: "Job", as_json: bool) -> int:
    """Run what the plan says, and print what came of it."""
    from flows.pipeline.run import StageResult
    from flows.release.outcome import Release
    from flows.retrain import launch
    from flows.workers import claim

    began = time.monotonic()
    _say_uncommitted(ready)
    try:
        outcome = launch.bring_up_to_date(ready, say)
    except claim.UnderWay as error:
        if as_json:
            print_json({"run": error.run, "host": error.host, "under_way": True})
        say(f"{error}; nothing was started here")
        return OK
    if outcome is None:
        results = [StageResult(stage.name, "current", 0.0) for stage in ready.stages]
        if as_json:
            print_json(_summary(None, results, Release(), None, time.monotonic() - began))
        else:
            newest = ready.newest or "dvc.lock"
            print(f"Nothing to do: all {len(ready.stages)} stages are as {newest} records them.")
        return OK
    if not outcome.whole:
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
    from flows.show import table

    results = list(results)
    seconds = time.monotonic() - began
    if as_json:
        print_json(_summary(run, results, release, page, seconds))
        return OK
    print(table.text(table.rows(results, release)))
    for line in [*table.release_lines(release), *table.next_steps(release.decisions, run.id)]:
        print(line)
    print(f"Recorded as {run.tag} in {seconds:.0f} s.")
    print(f"To have its outputs here: git checkout {run.tag} -- {' '.join(_recorded(run))} && dvc checkout")
    if page:
        print(f"Report: {page}")
    return OK


def _recorded(run: "RunInfo") -> list[str]:
    """The files by which a run's commit differs from the one that it started from, but for metrics."""
    from flows import repository
    from flows.arrivals import run_inputs

    lists = [path.as_posix() for path in (run_inputs.LIST, run_inputs.FOLDER)]
    there = repository.git(Path.cwd(), "ls-tree", "--full-tree", "--name-only", run.commit, *lists).splitlines()
    return ["dvc.lock", "params.yaml", *there]


def _summary(
    run: "RunInfo | None", results: list["StageResult"], release: "Release", page: Path | None, seconds: float
) -> dict[str, Any]:
    from flows.show import table

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


def _say_failures(ready: "Job", outcome: "RunOutcome") -> int:
    """Say of each failed stage why, with its last lines, what the budget ended, and what was not run because of it."""
    for failure in outcome.failures.values():
        say(f"\n{failure}. Its last lines:")
        for line in failure.tail():
            say(f"    {line}")
        say(f"All of it: {failure.log}")
    stopped = [name for name, result in outcome.broken.items() if result.action == "stopped"]
    if stopped or outcome.unaffordable:
        _say_budget(ready, outcome, stopped)
    skipped = [s.name for s in ready.stages if s.name not in outcome.results and s.name not in outcome.broken]
    if skipped:
        say(f"Not run: {', '.join(skipped)}.")
    correct = "correct the cause, and " if outcome.failures else ""
    say(f"What finished is kept: {correct}`remint retrain` goes on from there.")
    return FAILED


def _say_budget(ready: "Job", outcome: "RunOutcome", stopped: list[str]) -> None:
    """Say what was spent of a budget, and what it ended."""
    from flows.stage.budget import spent

    say(f"The budget ends this run: spent {spent(ready.budget, outcome.spending.all())}.")
    for name in stopped:
        say(f"{name} was ended while it worked; it goes on from its checkpoint, if it has one.")
    for name, why in outcome.unaffordable.items():
        say(f"{name} was not started: {why}.")


def _say_uncommitted(ready: "Job") -> None:
    paths = ready.checkout.uncommitted
    if paths:
        rest = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
        say(
            f"Commit {ready.run.base_commit[:7]} is what runs. Uncommitted, so not part of it: "
            f"{', '.join(paths[:LISTED])}{rest}."
        )
