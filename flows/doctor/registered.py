"""MLflow held against what it should know: versions twice or unrecorded, dead runs, files that were changed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any

from sqlalchemy import func, select, tuple_

from data.core.params import UserError
from flows.catalogue import schema
from flows.pipeline import run_tags, workspace
from flows.pipeline.reference import RUN_TAG
from flows.pipeline.run import run_tag
from flows.pipeline.run_record import unfinished
from flows.release import of_run, pointers, projections, recorded
from flows.release.pointers import Member
from flows.release.stores import Finding, Stores
from models import registry
from models.tracking import training_run

PAGE = 1000
YOUNG_SECONDS = 3600.0  # a run of another machine may be about to write its versions down

Versions = dict[tuple[str, int], Any]  # MLflow's, by name and number


def twins(stores: Stores) -> Iterator[Finding]:
    """Versions of one model with the same weights and configuration: two runs registered them at once."""
    version = schema.ModelVersion
    with stores.catalogue.read() as session:
        same = select(version.name, version.weights).group_by(version.name, version.weights).having(func.count() > 1)
        wanted = select(version.name, version.weights, version.number)
        both = tuple_(version.name, version.weights)
        rows = session.execute(
            wanted.where(both.in_(same)).order_by(version.name, version.weights, version.number)
        ).all()
    for (name, weights), group in groupby(rows, key=lambda row: (row[0], row[1])):
        numbers = [f"v{number}" for number in _of_one_config(stores, name, [row[2] for row in group])]
        if len(numbers) < 2:
            continue
        advice = f"delete {', '.join(numbers[1:])} in MLflow's registry, unless an alias stands on it"
        says = f"one model twice (weights {weights[:12]})"
        yield Finding("MLflow", f"{name} {' and '.join(numbers)}", says, "one version", None, advice)


def _of_one_config(stores: Stores, name: str, numbers: list[int]) -> list[int]:
    """Those of some versions that are there with the configuration of the first: the same weights may be several."""
    try:
        registered = stores.mlflow().search_model_versions(f"name = '{name}'")
    except UserError:  # nobody can tell
        return numbers
    configs = {int(one.version): one.tags.get(training_run.CONFIG) for one in registered}
    there = [number for number in numbers if number in configs]
    return [number for number in there if configs[number] in (None, configs[there[0]])]


def versions(stores: Stores) -> Iterator[Finding]:
    """Versions in MLflow's registry that the catalogue lacks."""
    try:
        found = list(_unrecorded(stores))
    except Exception as error:
        projections.outage(error)  # `releases` has said that MLflow does not answer; any other error is raised
        return
    yield from found


def _unrecorded(stores: Stores) -> Iterator[Finding]:
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
    there = run_tags.commits(stores.settings.root)
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
    with recorded.opened(stores, recorded.find(stores, run)) as ran:
        made = of_run.register_again(stores, ran)
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


def tracked(stores: Stores) -> Iterator[Finding]:
    """Stages that are still running in MLflow's pages though their run of this machine is dead."""
    client, _ = training_run.connect(stores.settings.mlflow_uri)
    if client is None:
        return  # `releases` has said so
    dead = recorded.here(stores.settings) - set(workspace.living(stores.settings))
    experiments = [found.experiment_id for found in client.search_experiments()]
    for run in client.search_runs(experiments, "attributes.status = 'RUNNING'"):
        of = run.data.tags.get(training_run.RUN, "")
        if of in dead:  # not a path made of it: anybody may have written the tag
            repair = partial(client.set_terminated, run.info.run_id, "KILLED")
            name = run.data.tags.get(training_run.STAGE, run.info.run_id)
            yield Finding("MLflow", f"{name} of run {of}", "RUNNING", "KILLED: its run is dead", repair)


def logged(stores: Stores, deep: bool = False) -> Iterator[Finding]:
    """Files of released versions in MLflow that are not as their tags say: `models.load` refuses them."""
    if not deep:
        return
    client, _ = training_run.connect(stores.settings.mlflow_uri)
    if client is None:
        return  # `releases` has said so
    for family in pointers.families(stores.bucket):
        try:
            log = pointers.log(stores.bucket, family)
        except UserError:
            continue  # `releases` has said so
        for one in pointers.aliases(log).values():
            for member in {one.production, one.previous}:
                if member is not None and (says := _of_files(client, member)):
                    advice = "the release itself is whole where nothing else is said: remint pull"
                    subject = f"files of {member.model} v{member.version}"
                    yield Finding("MLflow", subject, says, "as its tags say", None, advice)


def _of_files(client: Any, member: Member) -> str:
    """What is wrong with a version's files, "" if nothing."""
    try:
        version = client.get_model_version(member.model, str(member.version))
        return next(registry.differing(registry.brought(client, version), version), "")
    except Exception as error:  # MLflow and its stores say in many ways that something is not there
        return f"not to be read: {training_run.first_line(error)}"
