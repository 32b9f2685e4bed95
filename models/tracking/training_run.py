"""One MLflow run per stage: parameters, losses by step, pictures and digests.

Only `mlflow.MlflowClient` is used: `mlflow.pytorch` alone takes 7 s to import. Tracking is a convenience
of a run and never its condition: without MLflow, without a database or with a server that stopped
answering the stage goes on, and says so once on standard error.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from data.core.entry import ask_loopback_directly
from data.core.params import UserError
from models.tracking import embedded
from models.tracking.experiments import experiment, family_of, restore
from models.tracking.names import final, flatten, grouped, run_name
from models.tracking.server import answers, refusal, shown

# Tags by which flows/ and people find a stage's run again; models.core.stage adds "input.<name>" and "output".
STAGE, COMMIT, RUN, WEIGHTS, CONFIG = "stage", "git_commit", "run", "weights", "config"

FLUSH_SECONDS = 5.0  # 800 metrics cost 50-200 ms in SQLite, so one write per 5 s stays far under 1 % of a stage
BATCH = 1000  # MLflow's limit of metrics per log_batch


class Tracker(Protocol):
    """What a stage may report while it works; the null tracker accepts the same and keeps nothing."""

    run_id: str | None

    def params(self, values: Mapping[str, Any]) -> None: ...
    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def results(self, values: Mapping[str, Any]) -> None: ...
    def figure(self, path: Path, step: int = 0) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...


class NullTracker:
    """Accepts everything and keeps nothing."""

    run_id: str | None = None

    def params(self, values: Mapping[str, Any]) -> None: ...
    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...
    def results(self, values: Mapping[str, Any]) -> None: ...
    def figure(self, path: Path, step: int = 0) -> None: ...
    def tags(self, values: Mapping[str, str]) -> None: ...


class MlflowTracker:
    """Reports into one MLflow run; a failing server costs a line on standard error, never an exception."""

    def __init__(self, client: Any, run_id: str, stage: str = "", began: int = 0) -> None:
        self.run_id: str | None = run_id
        self._client, self._stage = client, stage
        self._began = began  # the time of its results: whoever records them again, adds no second point
        self._pending: list[Any] = []
        self._flushed = time.monotonic()
        self._pause = FLUSH_SECONDS

    def params(self, values: Mapping[str, Any]) -> None:
        """Record parameters; nested mappings become dotted names."""
        from mlflow.entities import Param

        rows = [Param(key, str(value)[:6000]) for key, value in flatten(values).items()]
        for start in range(0, len(rows), 100):
            self._attempt(self._client.log_batch, self.run_id, params=rows[start : start + 100])

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Remember metrics of one step; they are written every few seconds and at the end."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._pending += [Metric(grouped(key), float(value), now, step) for key, value in values.items()]
        if time.monotonic() - self._flushed >= self._pause:
            self.flush()

    def results(self, values: Mapping[str, Any]) -> None:
        """Record what a stage's metrics.json holds: the file, and as metrics what stands for all classes.

        A metric of a single class would be one more bar of the run's page; there are twenty of them.
        """
        from mlflow.entities import Metric

        self._attempt(self._client.log_dict, self.run_id, dict(values), "metrics.json")
        named = final(self._stage, values)
        self._pending += [Metric(key, value, self._began, 0) for key, value in named.items()]

    def figure(self, path: Path, step: int = 0) -> None:
        """Log a PNG so that MLflow shows it as an image, comparable between runs under its file's stem."""
        from PIL import Image

        with Image.open(path) as image:
            self._attempt(self._client.log_image, self.run_id, image.convert("RGB"), key=path.stem, step=step)

    def tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        rows = [RunTag(key, str(value)[:5000]) for key, value in values.items()]
        self._attempt(self._client.log_batch, self.run_id, tags=rows)

    def flush(self) -> None:
        """Write what is pending; what could not be written is kept and tried again, ever less often."""
        self._flushed = time.monotonic()
        while self._pending:
            if not self._attempt(self._client.log_batch, self.run_id, metrics=self._pending[:BATCH]):
                self._pause *= 2  # a server that hangs may cost a stage seconds, not minutes
                return
            del self._pending[:BATCH]
        self._pause = FLUSH_SECONDS

    def close(self, status: str) -> None:
        """Write the rest and end the run as FINISHED, FAILED or KILLED."""
        self.flush()
        self._attempt(self._client.set_terminated, self.run_id, status)

    def _attempt(self, call: Any, *arguments: Any, **named: Any) -> bool:
        try:
            call(*arguments, **named)
        except Exception as error:
            say(f"tracking: MLflow did not take a record ({first_line(error)}); the stage goes on")
            return False
        return True


def prepare() -> None:
    """Make the tracking database ready for all stages of a run, and say what had to be restored for it.

    UserError if it cannot be opened.
    """
    client, reason = connect()
    if client is None:
        raise UserError(reason)
    for name in restore(client):
        say(f"tracking: MLflow's experiment '{name}' had been deleted; it is restored, because runs are recorded in it")


@contextmanager
def open_run(
    stage: str, params: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
) -> Iterator[Tracker]:
    """Open the MLflow run of a stage and end it with the stage: finished, failed or killed.

    stage: its name in dvc.yaml ("depth-student@small"); it decides the experiment. Yields a null tracker
    where MLflow, its database or its server is missing.
    """
    client, reason = connect()
    run_id, began = None, int(time.time() * 1000)
    # read by MLflow at each request: a stage does not wait for a slow server, it tries again later
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    if client is not None:
        try:
            run_id = _create_run(client, stage, tags or {}, began)
        except Exception as error:
            reason = first_line(error)
    if run_id is None:
        say(f"tracking: off ({reason}); metrics and figures stay in the stage's output folder")
        yield NullTracker()
        return
    tracker = MlflowTracker(client, run_id, stage, began)
    tracker.params(params or {})
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        tracker.close(status)


def tracking_uri() -> str | None:
    """Where runs are recorded: MLFLOW_TRACKING_URI, else the embedded database if there is one.

    An empty MLFLOW_TRACKING_URI switches tracking off.
    """
    named = os.environ.get("MLFLOW_TRACKING_URI")
    if named is not None:
        return named or None
    return embedded_uri(Path.cwd()) if embedded_database(Path.cwd()).exists() else None


def embedded_database(home: Path) -> Path:
    return home / ".remint" / "mlflow.db"


def embedded_uri(home: Path) -> str:
    return embedded.database_uri(embedded_database(home.resolve()))


def connect(uri: str | None = None) -> tuple[Any, str]:
    """Return (client, "") or (None, reason) in a few seconds at most, whatever the server does.

    The embedded store of a checkout that was moved finds its files again.
    """
    ask_loopback_directly()
    uri = uri or tracking_uri()
    if uri is None:
        return None, "no tracking database: neither .remint/mlflow.db nor MLFLOW_TRACKING_URI"
    if was := embedded.find_files_again(uri):
        say(f"tracking: MLflow's files were in {was} and are found beside {embedded.database_file(uri)} again")
    if not answers(uri):
        return None, f"the MLflow server {shown(uri)} does not answer"
    if why := refusal(uri):
        return None, why
    quiet_environment()
    try:
        # The folder mlflow/ of this repository has no code: without the library, `import mlflow` alone
        # would find it and succeed.
        from mlflow import MlflowClient
    except ImportError:
        return None, "mlflow is not installed"
    try:
        embedded.make(uri)
        return MlflowClient(uri, registry_uri=uri), ""
    except Exception as error:
        return None, f"{shown(uri)}: {first_line(error)}"


def quiet_environment() -> None:
    """Settings that MLflow reads at import: no telemetry, no chatter."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name in ("alembic", "mlflow"):  # also where somebody has imported it before
        logging.getLogger(name).setLevel(logging.WARNING)


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@cache
def say(text: str) -> None:
    """Print a line on standard error, the same line only once per process."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@cache
def commit() -> str | None:
    """Return the commit checked out here, None outside git."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _create_run(client: Any, stage: str, tags: Mapping[str, str], began: int) -> str:
    known = {STAGE: stage, COMMIT: commit(), RUN: os.environ.get("REMINT_RUN")}
    known["mlflow.source.name"], known["mlflow.source.git.commit"] = stage, known[COMMIT]  # the UI's columns
    name = run_name(stage, known[RUN])
    every = {key: value for key, value in {**known, **tags}.items() if value}
    run_id = client.create_run(experiment(client, family_of(stage)), began, every, name).info.run_id
    client.log_inputs(run_id, datasets=_inputs(every))
    return str(run_id)


def _inputs(tags: Mapping[str, str]) -> list[Any]:
    """The stage's inputs as MLflow's datasets, which have a column of their own in the table of runs."""
    from mlflow.entities import Dataset, DatasetInput

    names = {key.removeprefix("input."): value for key, value in tags.items() if key.startswith("input.")}
    return [
        # short enough to be read in the table; the tag has all of the digest
        DatasetInput(Dataset(name=name, digest=digest[:12], source_type="dvc", source=f"artifacts/{name}"))
        for name, digest in names.items()
    ]
