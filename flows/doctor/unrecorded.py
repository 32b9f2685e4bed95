"""Model versions that MLflow's registry has and the catalogue lacks: found, and written down from their run's tag."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

from sqlalchemy import select

from data.core.params import UserError
from flows.catalogue import schema
from flows.pipeline import workspace
from flows.pipeline.reference import RUN_TAG
from flows.pipeline.store import Store
from flows.release import of_run, recorded
from flows.release.findings import Finding
from flows.release.stores import Stores
from flows.runs import tagged
from flows.runs.record import unfinished
from flows.runs.values import run_tag

PAGE = 1000
YOUNG_SECONDS = 3600.0  # a run of another machine may be about to write its versions down

Versions = dict[tuple[str, int], Any]  # MLflow's, by name and number


def find(stores: Stores) -> Iterator[Finding]:
    """The versions that the catalogue lacks, by the run that made them. UserError: the registry does not answer."""
    with stores.catalogue.read() as session:
        known = set(session.execute(select(schema.ModelVersion.name, schema.ModelVersion.number)).tuples())
    by_run: dict[str, Versions] = defaultdict(dict)
    for version in _registered(stores.mlflow()):
        name, run = (version.name, int(version.version)), version.tags.get(RUN_TAG, "")
        if name not in known and run.startswith(run_tag("")):
            by_run[run.removeprefix(run_tag(""))][name] = version
    left = unfinished(stores.settings, lambda name, error: None)  # what is damaged, the doctor names
    busy = {*workspace.living(stores.settings), *(one.run.id for one in left)}
    there = tagged.commits(stores.settings.root)
    for run, versions in sorted(by_run.items()):
        if run in busy or _young(stores, run, versions):
            continue
        what = f"{', '.join(f'{name} v{number}' for name, number in sorted(versions))} of run {run}"
        if run in there:
            yield Finding("catalogue", what, "not there", "as in MLflow", partial(record, stores, run, set(versions)))
        else:
            yield Finding("catalogue", what, "not there", "as in MLflow", None, "git fetch --tags, then again")


def record(stores: Stores, run: str, versions: set[tuple[str, int]]) -> None:
    """Write a run with its versions into the catalogue, as its end does; UserError if that cannot be done here."""
    found = recorded.find(stores, run)
    with recorded.opened(stores, found) as ran:
        store = Store(ran.workspace)
        try:
            stages = store.stages
        finally:
            store.close()
        made = of_run.register(stores, ran, stages, recorded.results(stores, found, stages))
    left = versions - {(one.model.name, one.version) for one in made.registered}
    if left:
        names = ", ".join(f"{name} v{number}" for name, number in sorted(left))
        raise UserError(
            f"the outputs of {names} are not in DVC's cache here, or others; dvc fetch --all-tags, then again"
        )


def _registered(client: Any) -> Iterator[Any]:
    """Every version of every registered model."""
    token = None
    while True:
        page = client.search_model_versions(max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _young(stores: Stores, run: str, versions: Versions) -> bool:
    """Whether another machine may still be at work on the run."""
    newest = max(version.creation_timestamp for version in versions.values()) / 1000
    return time.time() - newest < YOUNG_SECONDS and run not in recorded.here(stores.settings)
