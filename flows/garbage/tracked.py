"""Leftovers of MLflow in the embedded store: deleted runs and models, and files that no row names.

MLflow only marks a run or model as deleted and keeps its files; `mlflow gc` removes those, but without looking whether
a registered version stands on them, and never the files of a registration that was killed. Rows are read here and
removed by MLflow's own functions, files first, as it does: a kill in between leaves a row that is found again.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from flows.garbage.place import Garbage, InTheWay, Kind, Place, alone, newest, remove, size
from models.tracking import server, training_run
from models.tracking.embedded import database_file, folder_of

RUN, MODEL, FILES = "run", "model", "files"
ID = re.compile(r"(m-)?[0-9a-f]{32}")  # other folders of an experiment, as its traces, are MLflow's own affair


@dataclass(frozen=True)
class Row:
    """A run or a logged model, as MLflow's database has it."""

    kind: str  # RUN or MODEL
    id: str
    folder: Path
    deleted: float | None  # when, in seconds; None: it is not
    made_by_a_stage: bool = False  # a model whose run one of our stages opened, or our registration
    made: float = 0.0


@contextmanager
def guard(place: Place) -> Iterator[None]:
    uri = place.settings.mlflow_uri
    with alone(place):
        if database_file(uri) is None:
            raise InTheWay(f"{server.shown(uri)} keeps its own files: `mlflow gc` there")
        yield


def find(place: Place) -> Iterator[Garbage]:
    database = database_file(place.settings.mlflow_uri)
    if database is None or not database.exists():
        return
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        rows, registered, experiments = _read(connection)
    home = place.settings.home
    for row in sorted(rows, key=lambda one: one.id):
        why = _why(row, registered, place)
        if why and row.folder.is_relative_to(home):
            yield Garbage(KIND.name, f"{row.kind} {row.id}", size(row.folder) if row.folder.exists() else 0, why)
    known = {row.id for row in rows}
    for folder in sorted(experiments):
        for path in [*_inside(folder, home), *_inside(folder / "models", home)]:
            if path.name not in known and place.old(newest(path)):
                yield Garbage(KIND.name, f"{FILES} {path}", size(path), "no row of MLflow's database names it")


def delete(place: Place, item: Garbage) -> None:
    kind, _, what = item.what.partition(" ")
    if kind == FILES:
        remove(Path(what), place.settings.home)
        return
    from mlflow.exceptions import MlflowException

    client, reason = training_run.connect(place.settings.mlflow_uri)
    if client is None:
        raise InTheWay(reason)
    store = client._tracking_client.store  # hard deletion is not in MLflow's interface; `mlflow gc` calls the same
    with suppress(MlflowException):  # the row is gone already
        if kind == RUN:
            remove(_home_of(client.get_run(what).info.artifact_uri), place.settings.home)
            store._hard_delete_run(what)
        else:
            found = store.get_logged_model(what, allow_deleted=True)
            remove(_home_of(found.artifact_location), place.settings.home)
            store._hard_delete_logged_model(what)


KIND = Kind("tracking", find, delete, guard)


def _read(connection: sqlite3.Connection) -> tuple[list[Row], set[str], set[Path]]:
    """Runs and logged models, what registered versions stand on (run ids and model ids), and experiments' folders."""
    ask = connection.execute
    stages = {run for (run,) in ask("SELECT run_uuid FROM tags WHERE key = ?", (training_run.STAGE,))}
    rows = [
        Row(RUN, run, _home_of(uri), deleted / 1000 if stage == "deleted" and deleted else None)
        for run, uri, stage, deleted in ask("SELECT run_uuid, artifact_uri, lifecycle_stage, deleted_time FROM runs")
    ]
    columns = "model_id, artifact_location, lifecycle_stage, last_updated_timestamp_ms, source_run_id"
    for model, uri, stage, stamp, run in ask(f"SELECT {columns} FROM logged_models"):
        deleted = stamp / 1000 if stage == "deleted" else None
        rows.append(Row(MODEL, model, _home_of(uri), deleted, run in stages, stamp / 1000))
    registered: set[str] = set()
    for run, source in ask("SELECT run_id, source FROM model_versions WHERE current_stage != 'Deleted_Internal'"):
        registered |= {run, (source or "").rpartition("/")[2]}
    places = {folder_of(uri) for (uri,) in ask("SELECT artifact_location FROM experiments") if uri}
    return rows, registered, places


def _why(row: Row, registered: set[str], place: Place) -> str:
    """Why a row is garbage, "" if it is not."""
    if row.id in registered:
        return ""
    if row.deleted is not None:
        return "deleted in MLflow" if place.old(row.deleted) else ""
    left = row.kind == MODEL and row.made_by_a_stage and place.old(row.made)
    return "logged, and no registered version stands on it" if left else ""


def _inside(folder: Path, home: Path) -> Iterator[Path]:
    """Folders of runs and models in an experiment's folder."""
    if folder.is_relative_to(home) and folder.is_dir() and not folder.is_symlink():
        yield from (path for path in sorted(folder.iterdir()) if ID.fullmatch(path.name))


def _home_of(uri: str | None) -> Path:
    """The folder of a run or model: above its "artifacts"."""
    found = folder_of(uri or "")
    return found.parent if found.name == "artifacts" else found
