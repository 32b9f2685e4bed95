"""A run that was recorded before, found again by its id, with its outputs put into a worktree of their own."""

from __future__ import annotations

import difflib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from data.core.params import UserError, near
from flows import repository, settings
from flows.catalogue import known_runs, schema
from flows.pipeline import accepted, families, outputs, parameters, run, run_record, run_tags, workspace
from flows.pipeline.graph import Stage
from flows.pipeline.integrity import MEND, Objects
from flows.pipeline.lock import read_lock
from flows.pipeline.plan import overlap
from flows.pipeline.run import RunInfo, StageResult, run_tag
from flows.pipeline.store import Store
from flows.release.stores import Stores
from flows.settings import Settings

NAMED = 3  # runs that an error lists


def find(stores: Stores, wanted: str | None) -> RunInfo:
    """The run of this id or tag, the newest one without either; UserError if its tag is not where it was put.

    One of which only the tag is known must be as a run leaves it, see `flows.pipeline.run_tags`. Its workspace is that
    of the main checkout until `opened` gives it one.
    """
    root = stores.settings.root
    there, rows = run_tags.commits(root), _rows(stores)
    known = sorted({*there, *rows})
    if not known:
        raise UserError(f"no run has been recorded in {root}{_shallow(stores)}; the first: remint retrain")
    named = (_newest(stores, rows) or known[-1]) if wanted is None else wanted
    identifier = named.removeprefix(run_tag(""))
    if identifier not in known:
        close = difflib.get_close_matches(identifier, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"the newest: {', '.join(reversed(known[-NAMED:]))}"
        raise UserError(f"no run '{identifier}'; {hint}{_shallow(stores)}")
    row = rows.get(identifier)
    commit = there.get(identifier)
    if commit is None:
        raise UserError(f"run {identifier}: its tag {_lost(stores, run_tag(identifier))}")
    known_as = row.commit if row else known_runs.Runs(stores.settings).known(identifier)
    if known_as not in (None, commit):
        raise UserError(
            f"run {identifier}: its tag {run_tag(identifier)} was moved to commit {commit[:12]}, the run was recorded "
            f"with {known_as[:12]}; to put it back: git tag -d {run_tag(identifier)}, then: remint doctor --repair"
        )
    doubt = "" if known_as else known_runs.Runs(stores.settings).doubt(identifier, commit)
    if doubt:
        raise UserError(
            f"run {identifier} is known by its tag alone, and {doubt}; promote it where it ran, or bring what DVC "
            "remembers of it: dvc fetch --run-cache --all-tags"
        )
    noted = run_record.load(stores.settings, identifier)
    if noted:
        return noted.run
    return _of_row(root, row) if row else _of_tag(root, identifier, commit)


def _newest(stores: Stores, rows: Mapping[str, schema.Run]) -> str | None:
    """The newest run that counts, or that is known though its tag is gone."""
    tag = known_runs.newest(stores.settings)
    return max([*rows, *([tag.removeprefix(run_tag(""))] if tag else [])], default=None)


def _lost(stores: Stores, tag: str) -> str:
    """What became of the tag of a run that is known, and the next step."""
    wrong = run_tags.strangers(stores.settings.root).get(tag)
    if wrong:
        return f"{tag} is {wrong}; git tag -d {tag}, then: remint doctor --repair"
    return f"{tag} was deleted or not fetched; git fetch --tags, or: remint doctor --repair{_shallow(stores)}"


@contextmanager
def opened(stores: Stores, found: RunInfo, family: str | None = None, whole: bool = False) -> Iterator[RunInfo]:
    """The run in a worktree with its outputs in place; UserError if `family` is not its, or not in a cache here.

    whole: all its models must be here.
    """
    chosen = stores.settings
    identifier = f"{found.id}-{uuid.uuid4().hex[:8]}"
    index = workspace.index_folder(chosen.worktrees / identifier)
    here = settings.child_environment(chosen) | {"DVC_SITE_CACHE_DIR": str(index)}
    with environment(here), workspace.opened(chosen, found.commit, identifier) as root:
        with closing(Store(root, accepted.remote(chosen))) as store:
            store.checkout()
            if chosen.stages == "workers":
                entries = [store.entry(stage) for stage in store.stages]
                outputs.last_steps(store, [entry for entry in entries if entry is not None])
            remotes = list(store.repo.config.get("remote", {}))
        if family is not None or whole:
            _check(chosen, found, root, family, bool(remotes))
        yield replace(found, workspace=root, parameters=parameters.digest(root))


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """DVC and MLflow take their settings from this process's environment."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def here(chosen: Settings) -> set[str]:
    """The ids of the runs of which this machine keeps something."""
    return {path.name for path in chosen.runs.iterdir()} if chosen.runs.is_dir() else set()


def stages(ran: RunInfo) -> tuple[Stage, ...]:
    """The graph of a run whose outputs are in place."""
    with closing(Store(ran.workspace)) as store:
        return store.stages


def results(stores: Stores, found: RunInfo, stages: Sequence[Stage]) -> tuple[StageResult, ...]:
    """What became of the run's stages as far as this machine noted it; elsewhere they are just there."""
    noted = run_record.load(stores.settings, found.id)
    return noted.results if noted and noted.results else tuple(StageResult(one.name, "current", 0.0) for one in stages)


def _check(chosen: Settings, found: RunInfo, root: Path, family: str | None, remotes: bool) -> None:
    """UserError if the run's graph has no such family, or its models (those of all families) are not here."""
    models = families.models_of(root)
    own = [model for model in models if family in (None, model.family)]
    if not own and family is not None:
        known = sorted({model.family for model in models})
        raise UserError(f"run {found.id} has no family '{family}'{near(family, known)}")
    missing = [str(model.path) for model in own if not (root / model.path / "model.safetensors").exists()]
    if missing:
        objects = Objects(workspace.cache(chosen))
        outs = {out["path"]: out["md5"] for entry in read_lock(root).values() for out in entry.get("outs", [])}
        own_outs = {out: oid for out, oid in outs.items() if any(overlap(out, str(model.path)) for model in own)}
        if damaged := objects.damaged(own_outs, deep=True):
            raise UserError(f"run {found.id}: {damaged[0]}; {MEND}")
        bring = "dvc fetch --all-tags" if remotes else "name a remote that has them (dvc remote add), then dvc fetch -T"
        raise UserError(f"run {found.id}: {', '.join(missing)} not in DVC's cache here; {bring}")


def _rows(stores: Stores) -> dict[str, schema.Run]:
    with stores.catalogue.read() as session:
        found = session.scalars(select(schema.Run).where(schema.Run.state == "done")).all()
        session.expunge_all()
    return {row.id: row for row in found}


def _of_row(root: Path, row: schema.Run) -> RunInfo:
    """A run as the catalogue has it."""
    commits = (row.commit, row.base_commit)
    return RunInfo(row.id, row.tag, *commits, root, False, row.parameters, row.started, row.trigger)


def _of_tag(root: Path, identifier: str, commit: str) -> RunInfo:
    """A run of which only its tag came here, as into a clone."""
    base = repository.git(root, "rev-parse", "--verify", "--quiet", f"{commit}^", check=False) or commit
    started = run.started_at(identifier) or datetime.now(UTC)
    return RunInfo(identifier, run_tag(identifier), commit, base, root, False, "", started, "retrain")


def _shallow(stores: Stores) -> str:
    shallow = repository.git(stores.settings.root, "rev-parse", "--is-shallow-repository", check=False) == "true"
    return "; this clone is shallow and lacks older runs: git fetch --unshallow --tags" if shallow else ""
