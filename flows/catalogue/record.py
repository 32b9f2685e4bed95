"""Write down what a run was: its data, its stages, its model versions and what each was made from.

    alarms = record.record_run(catalogue, settings, run, stages, results, registered)

Recording is idempotent: a run that was killed and is completed, or recorded first without its models and then with
them, has each row once.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from flows import repository
from flows.catalogue import datasets
from flows.catalogue.alarms import Alarm, sound
from flows.catalogue.costs import FIELDS
from flows.catalogue.database import Catalogue
from flows.catalogue.datasets import Dataset
from flows.catalogue.schema import DataVersion, Edge, Execution, ModelVersion, Photograph, Run
from flows.pipeline import environment
from flows.pipeline import lock as locked
from flows.pipeline.environment import Environment
from flows.pipeline.graph import Stage
from flows.pipeline.reference import GTO_TAG, RUN_TAG
from flows.pipeline.run import BROKEN, RunInfo, StageResult, run_tag, started_at
from flows.settings import Settings
from flows.stage.process import RESUMED
from models.tracking.training_run import COMMIT

if TYPE_CHECKING:
    from flows.catalogue.registered import Registered
    from flows.stage.spending import Usage

RUN_CACHE = "DVC's run cache"


def record_run(
    catalogue: Catalogue,
    settings: Settings,
    run: RunInfo,
    stages: Sequence[Stage],
    results: Sequence[StageResult],
    registered: Sequence[Registered] = (),
) -> list[Alarm]:
    """Record a run while its workspace still stands; returns the determinism alarms, which the journal has as well.

    A run with a failed stage is recorded as failed, with the stages that were executed.
    """
    by_name = {result.name: result for result in results}
    lock = locked.read_lock(run.workspace)
    data = datasets.of_run(run.workspace, stages, by_name, lock)
    executed = [_executed(result, lock) for result in results if result.action != "skipped"]
    doubles = list(locked.doubles(run.workspace, {one.stage: lock[one.stage] for one in executed if one.output}))
    edges = {one.model.name: _edges(one, lock) for one in registered}
    here = environment.describe(run.workspace)

    def write(session: Session) -> list[Alarm]:
        for found in data:
            _data_version(session, found)
        for one in registered:
            _maker(session, run, one)
        _run(session, run, results, here)
        _executions(session, run, executed)
        for one in registered:
            _model_version(session, run, one, edges[one.model.name])
        alarms = [*_between_runs(session, run, here, executed), *_in_run_cache(run, here, executed, doubles)]
        for alarm in alarms:
            sound(session, alarm)
        return alarms

    return catalogue.write(write)


@dataclass(frozen=True)
class _Cost:
    """What a stage used, and where."""

    usage: Usage | None
    host: str

    def columns(self) -> dict[str, Any]:
        """As the catalogue has it; nothing for a stage of which nothing was attempted."""
        return {column: getattr(self.usage, name) for column, name in FIELDS.items()} if self.usage else {}


@dataclass(frozen=True)
class _Executed:
    """A stage as it was executed; no digests for one that failed."""

    stage: str
    action: str
    seconds: float
    cost: _Cost
    input: str = ""
    output: str = ""


def _executed(result: StageResult, lock: Mapping[str, locked.Entry]) -> _Executed:
    cost = _Cost(result.usage, result.host or socket.gethostname())
    if result.action in BROKEN or result.name not in lock:
        return _Executed(result.name, result.action, result.seconds, cost)
    entry = lock[result.name]
    action = "resumed" if result.action == "ran" and _went_on(result) else result.action
    return _Executed(result.name, action, result.seconds, cost, locked.input_digest(entry), locked.output_digest(entry))


def _went_on(result: StageResult) -> bool:
    """Whether the stage took up a checkpoint, by what it said."""
    return result.log is not None and result.log.exists() and RESUMED in result.log.read_text(errors="replace")


def _data_version(session: Session, found: Dataset) -> None:
    """Write a data version if it is new; else only what is now known better: validation's verdict, its samples."""
    where = (DataVersion.stage == found.stage, DataVersion.digest == found.digest)
    row = session.scalars(select(DataVersion).where(*where)).one_or_none()
    if row is None:
        parent = session.scalar(select(func.max(DataVersion.id)).where(DataVersion.stage == found.stage))
        about = {
            "stage": found.stage,
            "digest": found.digest,
            "rows": 0,
            "bytes": found.bytes,
            "verdict": found.verdict,
        }
        row = DataVersion(**about, parent_id=parent, created=datetime.now(UTC))
        session.add(row)
        session.flush()
    if found.verdict != "unchecked":
        row.verdict = found.verdict
    if found.rows and not row.rows:  # the workspace of an earlier recording may have lacked the files
        row.rows = found.rows
        held = [{"data_id": row.id, "photo": photo, "name": name} for photo, name in found.photographs.items()]
        if held:
            session.execute(insert(Photograph), held)


def _run(session: Session, run: RunInfo, results: Sequence[StageResult], here: Environment) -> None:
    if session.get(Run, run.id) is not None:
        return
    failed = any(result.action in BROKEN for result in results)
    row = Run(
        id=run.id,
        seq=(session.scalar(select(func.max(Run.seq))) or 0) + 1,
        tag=run.tag,
        commit=run.commit,
        base_commit=run.base_commit,
        trigger=run.trigger,
        parameters=run.parameters,
        environment=here.digest,
        machine=here.machine,
        state="failed" if failed else "done",
        started=run.started,
        ended=datetime.now(UTC),
    )
    session.add(row)
    session.flush()


def _maker(session: Session, run: RunInfo, one: Registered) -> None:
    """Write the run that made a version, where this run only met it again and the catalogue lacks its maker.

    As a new catalogue does: a version is never another run's. Git knows the run, but for what asked for it.
    """
    tag, commit = one.tags.get(RUN_TAG, run.tag), one.tags.get(COMMIT, run.commit)
    identifier = tag.removeprefix(run_tag(""))
    if identifier == run.id or session.get(Run, identifier) is not None:
        return
    root = run.workspace
    base = repository.git(root, "rev-parse", "--verify", "--quiet", f"{commit}^", check=False) or commit
    where = environment.of_commit(root, commit) if base != commit else None
    started = started_at(identifier) or datetime.now(UTC)
    row = Run(
        id=identifier,
        seq=(session.scalar(select(func.max(Run.seq))) or 0) + 1,
        tag=tag,
        commit=commit,
        base_commit=base,
        trigger="",
        parameters=repository.digest_at(root, commit, "params.yaml") or "",
        environment=where.digest if where else "",
        machine=where.machine if where else "",
        state="done",
        started=started,
        ended=started,
    )
    session.add(row)
    session.flush()


def _executions(session: Session, run: RunInfo, executed: Iterable[_Executed]) -> None:
    """Write what became of each stage; the first word counts: who completes a run sees its stages as current."""
    known = set(session.scalars(select(Execution.stage).where(Execution.run_id == run.id)))
    for one in executed:
        if one.stage not in known:
            digests = {"input_digest": one.input, "output_digest": one.output}
            about = {"seconds": one.seconds, "host": one.cost.host, "action": one.action}
            session.add(Execution(run_id=run.id, stage=one.stage, **digests, **about, **one.cost.columns()))
    session.flush()


def _model_version(session: Session, run: RunInfo, one: Registered, edges: Mapping[tuple[str, str], str]) -> None:
    """Write a model version if it is new; else its newest evaluation, and its tag in git once it has one."""
    where = (ModelVersion.name == one.model.name, ModelVersion.number == one.version)
    row = session.scalars(select(ModelVersion).where(*where)).one_or_none()
    tag = one.tags.get(GTO_TAG, "")
    if row is None:
        maker = one.tags.get(RUN_TAG, run.tag).removeprefix(run_tag(""))  # an earlier run, if these weights were known
        about = {"family": one.model.family, "name": one.model.name, "number": one.version, "weights": one.weights}
        made = {"run_id": maker, "mlflow_run": one.mlflow_run_id, "tag": tag}
        row = ModelVersion(**about, **made, metrics=dict(one.metrics), created=datetime.now(UTC))
        row.edges = [Edge(kind=kind, name=name, digest=digest) for (kind, name), digest in edges.items()]
        session.add(row)
    if row.weights != one.weights:
        return  # MLflow counts anew after a model was deleted there; what was written down first stays
    row.tag = tag or row.tag
    row.metrics = dict(one.metrics) or row.metrics
    session.flush()


def _edges(one: Registered, lock: Mapping[str, locked.Entry]) -> dict[tuple[str, str], str]:
    """What a version was made from; its own tags know better than the lock of a run that only met it again."""
    data = {key.removeprefix("data."): digest for key, digest in one.tags.items() if key.startswith("data.")}
    if not data:
        data = locked.data_of({"stages": lock}, one.model.path.as_posix())
    named = {("data", name): digest for name, digest in data.items()}
    return named | {("parent", name): digest for name, digest in one.parents.items()}


def _between_runs(session: Session, run: RunInfo, here: Environment, executed: Iterable[_Executed]) -> Iterator[Alarm]:
    """Outputs that an earlier run had for the same input, where they were others."""
    for one in executed:
        if not one.input:
            continue
        same = (Execution.stage == one.stage, Execution.input_digest == one.input, Execution.run_id != run.id)
        other = Execution.output_digest.not_in(("", one.output))
        columns = (Execution.output_digest, Run.id, Run.machine)
        seen: set[str] = set()
        for output, name, machine in session.execute(select(*columns).join(Run).where(*same, other).order_by(Run.seq)):
            if output not in seen:
                seen.add(output)
                yield Alarm(one.stage, one.input, (output, one.output), (name, run.id), (machine, here.machine))


def _in_run_cache(
    run: RunInfo, here: Environment, executed: Iterable[_Executed], doubles: Iterable[tuple[str, str]]
) -> Iterator[Alarm]:
    """Outputs that DVC remembers for the same input beside the run's own."""
    by_stage = {one.stage: one for one in executed}
    for stage, output in doubles:
        one = by_stage[stage]
        yield Alarm(stage, one.input, (output, one.output), (RUN_CACHE, run.id), ("", here.machine))
