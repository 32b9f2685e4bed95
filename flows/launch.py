"""Start a job on this machine: check what it needs, bring up the servers it talks to, run its flow.

Everything that could stop a run after twelve minutes and can be known before is checked here.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from data.params import UserError
from flows import families, finish, notify, server
from flows.finish import Noted
from flows.gates.policy import POLICY, read_policy
from flows.job import Job
from flows.progress import Progress
from flows.release import stores
from flows.run import StageResult
from flows.settings import Settings
from models import tracking

if TYPE_CHECKING:
    from flows.retrain import Outcome

LEAST_SPACE = 1 << 30  # bytes: outputs, logs and databases of the default run take about 300 MB


def check(job: Job) -> None:
    """UserError if the machine, a named server or the promotion policy cannot take a run."""
    settings = job.settings
    if not tracking.answers(settings.mlflow_uri):
        raise UserError(
            f"REMINT_MLFLOW_URI={tracking.shown(settings.mlflow_uri)}: no MLflow server answers there; "
            f"start it, or unset the variable to use the database in {settings.home}"
        )
    cache = settings.root / ".dvc" / "cache"
    for folder in (settings.home, cache if cache.exists() else settings.root):
        free = shutil.disk_usage(folder).free
        if free < LEAST_SPACE:
            raise UserError(f"{folder} has {free >> 20} MB left; a run needs {LEAST_SPACE >> 20} MB: free some space")
        if not os.access(folder, os.W_OK):
            raise UserError(f"{folder} cannot be written to; correct its permissions")
    root = job.run.workspace
    read_policy(root / POLICY, [model.name for model in families.models_of(root)])


def same_work(job: Job, left: Noted) -> bool:
    """Whether an interrupted run was of this commit with these parameters, and so can be completed as it is."""
    return left.run.base_commit == job.run.base_commit and left.run.parameters == job.run.parameters


def run(job: Job, progress: Progress) -> "Outcome":
    """Run a job to its end in this process, with a Prefect server and a tracking database that are ready for it."""
    opening = _open_tracking(job.settings, job.environment)
    try:
        progress.note(f"run {job.run.id}: bringing up its records")
        job.store.checkout()
        with server.borrowed(job.settings, job.environment) as api:
            os.environ["PREFECT_API_URL"] = api
            from flows import retrain  # not before: Prefect reads the environment when it is imported

            with notify.failure(job.settings, job.run):
                outcome = retrain.retrain(job, progress, lambda: _tracking_is_open(opening, job.settings))
            notify.tell(job.settings, notify.of_run(outcome))
            return outcome
    finally:
        if opening.poll() is None:
            opening.kill()
            opening.wait()


def complete(job: Job, left: Noted, progress: Progress) -> tuple[dict[str, StageResult], finish.Release, Path | None]:
    """Register, judge, release and report a run that was recorded and then interrupted; no stage runs again."""
    progress.note(f"run {left.run.id} was interrupted before its models were released: completing it")
    with stores.opened(job.settings) as places:
        results, release, page = finish.complete(places, left)
    notify.tell(job.settings, notify.of_release(left.run, release))
    return {result.name: result for result in results}, release, page


def _open_tracking(settings: Settings, environment: Mapping[str, str]) -> subprocess.Popen:
    """Make the tracking database before stages use it at once: its migrations take seconds and may not race."""
    code = "import mlflow; mlflow.MlflowClient().search_experiments(max_results=1)"  # MLFLOW_TRACKING_URI is set
    return subprocess.Popen(
        [sys.executable, "-c", code],  # without the address: everybody can read a process's arguments
        env=dict(environment),
        cwd=settings.home,  # not the repository: its folder mlflow/ has no Python
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _tracking_is_open(opening: subprocess.Popen, settings: Settings) -> None:
    _, words = opening.communicate()
    if opening.returncode != 0:
        last = (words.strip() or f"exit code {opening.returncode}").splitlines()[-1]
        raise UserError(f"MLflow cannot open {tracking.shown(settings.mlflow_uri)}: {last}")
