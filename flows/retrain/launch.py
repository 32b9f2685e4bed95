"""Start a job on this machine: check what it needs, bring up the servers it talks to, run its flow.

Everything that could stop a run after twelve minutes and can be known before is checked here.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace

from data.core.params import UserError
from flows.pipeline import run_record
from flows.pipeline.job import Job
from flows.pipeline.run_record import RunRecord
from flows.release import killed, notify, origin, stores
from flows.release.gates.policy import gates_of
from flows.release.outcome import RunOutcome
from flows.retrain.job import newest_run, renewed
from flows.retrain.progress import Progress, console
from flows.server import connect
from flows.settings import Settings
from flows.workers import claim, flowruns, pools
from models.tracking import server as mlflow_server

LEAST_SPACE = 1 << 30  # bytes: outputs, logs and databases of the default run take about 300 MB


def check(job: Job) -> None:
    """UserError if the machine, a named server or the promotion policy cannot take a run."""
    settings = job.settings
    mlflow_server.check(settings.mlflow_uri, f"start it, or unset the variable to use the database in {settings.home}")
    cache = settings.root / ".dvc" / "cache"
    for folder in (settings.home, cache if cache.exists() else settings.root):
        free = shutil.disk_usage(folder).free
        if free < LEAST_SPACE:
            raise UserError(f"{folder} has {free >> 20} MB left; a run needs {LEAST_SPACE >> 20} MB: free some space")
        if not os.access(folder, os.W_OK):
            raise UserError(f"{folder} cannot be written to; correct its permissions")
    gates_of(job.run.workspace)
    if settings.stages == "workers":
        pools.check_for(job)


def bring_up_to_date(job: Job, say: Callable[[str], None]) -> RunOutcome | None:
    """Complete the runs of which only the end is missing, then run what the plan of a job says; None: nothing to do.

    claim.UnderWay if another process does it already.
    """
    if killed.left_behind(job.settings):
        _resume_killed(job.settings, say)
    check(job)
    if job.plan.empty and not run_record.unfinished(job.settings):
        _withdraw(job, claim.clear(job, say))
        return None
    _resume_killed(job.settings, say)
    with claim.held(job, say) as claimed, ExitStack() as stack:
        stack.callback(_withdraw, job, (job.run.id, *claimed.dead))  # not before: workers fetch dead runs' commits too
        now = newest_run(job.settings)
        if now != job.newest:  # another process had the claim till now
            job = stack.enter_context(renewed(job, now))
        if cast_out := job.store.cast_out(job.stages, job.plan):
            for damage in cast_out:
                say(f"{damage}; it is taken out of the cache, and brought or made again")
            job = stack.enter_context(renewed(job, now))
        shown = stack.enter_context(console())
        completed = [complete(job, left, shown, say) for left in run_record.unfinished(job.settings)]
        if job.plan.empty:
            return next(filter(None, reversed(completed)), None)
        return run(replace(job, check=claimed.check), shown, claimed.dead)


def _resume_killed(settings: Settings, say: Callable[[str], None]) -> None:
    from flows.release import procedure  # not before: a run with nothing to do loads no SQLAlchemy

    procedure.resume_killed(settings, say)


def run(job: Job, progress: Progress, dead: Collection[str] = ()) -> RunOutcome:
    """Run a job to its end in this process, with a Prefect server and a tracking database that are ready for it.

    dead: ids of runs that wanted the same and were killed.
    """
    opening = _open_tracking(job.settings, job.environment)
    try:
        progress.note(f"run {job.run.id}: bringing up its records")
        if job.settings.stages == "here":
            job.store.lay_out(job.plan)
        else:
            origin.offer(job.settings.root, job.run.id, job.run.commit)
        with connect.borrowed(job.settings, job.environment) as api:
            connect.use(api)
            if job.settings.prefect_api:
                flowruns.crash(dead)
            from flows.retrain import flow  # not before: Prefect reads the environment when it is imported

            with notify.failure(job.settings, job.run):
                outcome = flow.retrain(job, progress, lambda: _tracking_is_open(opening, job.settings, progress))
            notify.tell(job.settings, notify.of_run(outcome))
            return outcome
    finally:
        if opening.poll() is None:
            opening.kill()
            opening.wait()


def _withdraw(job: Job, runs: Collection[str]) -> None:
    """Take the commits of runs that have ended from origin."""
    if job.settings.stages == "workers":
        for identifier in runs:
            origin.withdraw(job.settings.root, identifier)


def complete(job: Job, left: RunRecord, progress: Progress, say: Callable[[str], None]) -> RunOutcome | None:
    """Register, judge, release and report a run that was recorded and then interrupted; no stage runs again.

    Before the job, whatever that is of: else a later run would be judged first. None where another process was quicker,
    or where it cannot be done and there is a newer job to do.
    """
    progress.note(f"run {left.run.id} was interrupted before its models were released: completing it")
    try:
        from flows.retrain import finalise  # not before: a run with nothing to do loads none of it

        with stores.opened(job.settings) as places:
            done = finalise.complete(places, left)
    except UserError as error:
        if job.plan.empty:
            raise
        say(f"run {left.run.id} was interrupted and cannot be completed now: {error}; later: remint doctor --repair")
        return None
    if done is None:
        return None
    results, release, page = done
    for outcome in release.outcomes:
        progress.note(f"run {left.run.id}: {outcome}")
    notify.tell(job.settings, notify.of_release(left.run, release))
    return RunOutcome(left.run, {result.name: result for result in results}, release=release, report=page)


def _open_tracking(settings: Settings, environment: Mapping[str, str]) -> subprocess.Popen:
    """Make the tracking database before stages use it at once: its migrations take seconds and may not race."""
    code = "from models.tracking import training_run as tracking; tracking.prepare()"  # MLFLOW_TRACKING_URI is set
    return subprocess.Popen(
        [sys.executable, "-c", code],  # without the address: everybody can read a process's arguments
        env=dict(environment),
        cwd=settings.home,  # not the repository: its folder mlflow/ has no Python
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _tracking_is_open(opening: subprocess.Popen, settings: Settings, progress: Progress) -> None:
    """Wait for the tracking database, and note what had to be done to it; UserError if it cannot be opened."""
    _, words = opening.communicate()
    said = [line for line in words.splitlines() if line.strip() and not line.startswith(("(Background", "[SQL"))]
    if opening.returncode != 0:
        last = said[-1].removeprefix("data.core.params.UserError: ") if said else f"exit code {opening.returncode}"
        raise UserError(f"MLflow cannot open {mlflow_server.shown(settings.mlflow_uri)}: {last}; see REMINT_MLFLOW_URI")
    for line in said:
        if line.startswith("tracking: "):
            progress.note(line)
