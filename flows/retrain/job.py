"""A run before it starts: its worktree at the commit, its parameters, its plan.

    with job.prepared(start, recipe=..., assignments=...) as ready:
        ready.plan ...

Nothing here starts a server or runs a stage; what is planned to run is run by `flows.retrain.flow`.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows import repository, settings
from flows.arrivals import run_inputs
from flows.catalogue import known_runs
from flows.pipeline import accepted, parameters, plan, workspace
from flows.pipeline.job import Job
from flows.pipeline.run import SET, RunInfo, run_id, run_tag
from flows.pipeline.store import Store
from flows.release import origin
from flows.settings import Settings

if TYPE_CHECKING:
    pass


@contextmanager
def prepared(
    start: Path,
    recipe: str | None = None,
    assignments: Sequence[str] = (),
    trigger: str = "retrain",
    commit: str | None = None,
) -> Iterator[Job]:
    """A job for a commit, or the one that is checked out around `start`; its worktree goes when the context ends."""
    checkout = repository.find(start)
    if commit is not None:
        checkout = replace(checkout, head=commit, uncommitted=())
    chosen = settings.load(checkout.main)
    newest = newest_run(chosen)
    with ExitStack() as stack:
        started, environment, root = _opened(stack, chosen, checkout.head)
        identifier = root.name
        arrived = run_inputs.put(root, chosen)
        changes = _changes(root, recipe, [*arrived, *assignments])
        changes = run_inputs.listed(root, chosen, changes)
        commit = _commit_parameters(root, identifier, changes) if changes or arrived else checkout.head
        parameters.check(root)
        workspace.start_from(chosen, root, newest)
        run = RunInfo(
            id=identifier,
            tag=run_tag(identifier),
            commit=commit,
            base_commit=checkout.head,
            workspace=root,
            dirty=bool(checkout.uncommitted),
            parameters=parameters.digest(root),
            started=started,
            trigger=trigger,
        )
        with closing(Store(root, accepted.remote(chosen))) as store:
            made = plan.make(store.stages, store)
            parameters.serve(root, store.stages, made)
            yield Job(chosen, checkout, run, store.stages, made, changes, environment, store, newest=newest)


def newest_run(chosen: Settings) -> str | None:
    """The tag of the run that was finished last; where workers run the stages, by any machine."""
    if chosen.stages == "workers":
        origin.fetch_tags(chosen.root)
    return known_runs.newest(chosen)


@contextmanager
def renewed(job: Job, tag: str | None) -> Iterator[Job]:
    """The job planned again from the run `tag`, which another process has recorded after this one looked."""
    workspace.start_from(job.settings, job.run.workspace, tag)
    with closing(Store(job.run.workspace, accepted.remote(job.settings))) as store:
        yield replace(job, plan=plan.make(store.stages, store), store=store, newest=tag)


def _opened(stack: ExitStack, chosen: Settings, commit: str) -> tuple[datetime, dict[str, str], Path]:
    """Start time, environment and worktree of a new run; of two that start at once one takes the next second."""
    while True:
        started, identifier = _identity(chosen, commit)
        environment = settings.child_environment(chosen) | {
            "REMINT_RUN": identifier,
            "DVC_SITE_CACHE_DIR": str(workspace.index_folder(chosen.worktrees / identifier)),
        }
        os.environ.update(environment)  # DVC, MLflow and Prefect take their settings from this process's environment
        try:
            return started, environment, stack.enter_context(workspace.opened(chosen, commit, identifier))
        except FileExistsError:  # the mark of the other
            time.sleep(0.2)


def _identity(chosen: Settings, commit: str) -> tuple[datetime, str]:
    """Start time and id of a run; runs that start within one second wait for the next."""
    while True:
        started = datetime.now(UTC).replace(microsecond=0)
        identifier = run_id(started, commit)
        if not any((folder / identifier).exists() for folder in (chosen.worktrees, chosen.runs)):
            return started, identifier
        time.sleep(0.2)


def _changes(root: Path, recipe: str | None, assignments: Sequence[str]) -> dict[str, Any]:
    return {} if recipe is None and not assignments else parameters.changes(root, recipe, assignments)


def _commit_parameters(root: Path, identifier: str, changes: Mapping[str, Any]) -> str:
    parameters.apply(root, changes)
    said = "\n".join(f"{key} = {value}" for key, value in changes.items())
    paths = [parameters.FILE.as_posix(), *run_inputs.lists(root)]
    message = f"{SET} {identifier}\n\n{said}"
    return repository.commit(root, message, paths, allow_empty=not changes)
