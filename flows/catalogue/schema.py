"""The catalogue's tables.

Rows name things by digest wherever a digest exists, so that two catalogues of one project can be compared. Order is
kept by numbers (`id`, `seq`, `number`), never by times: a clock may go backwards. Times are UTC.
`infra/migrations` makes these tables; a test holds both against each other. A change here needs a new revision there:
change the classes, `alembic revision --autogenerate -m "..."`, put its number into REVISION.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

REVISION = "0002"  # the newest of infra/migrations/versions


class Utc(TypeDecorator):
    """A time with zone: SQLite would forget it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError(f"a time without zone: {value}")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    metadata = MetaData(  # migrations change constraints by name
        naming_convention={
            "ix": "%(table_name)s_%(column_0_N_name)s_index",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map = {float: Double, dict[str, Any]: JSON, list[Any]: JSON, datetime: Utc, str: Text}  # noqa: RUF012


class DataVersion(Base):
    """One output of a data stage: what models were trained and judged on."""

    __tablename__ = "data_version"
    __table_args__ = (UniqueConstraint("stage", "digest"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    stage: Mapped[str]  # "scenes", "photos"
    digest: Mapped[str] = mapped_column(index=True)  # DVC's, as in dvc.lock: "....dir"
    rows: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    verdict: Mapped[str]  # of validation: "passed", "failed", "unchecked"
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("data_version.id"))  # the version before it
    created: Mapped[datetime]


class Photograph(Base):
    """Which photographs a data version holds, so that one can be withdrawn."""

    __tablename__ = "photograph"

    data_id: Mapped[int] = mapped_column(ForeignKey("data_version.id"), primary_key=True)
    photo: Mapped[str] = mapped_column(primary_key=True, index=True)  # first 12 hex digits of its bytes' sha256
    name: Mapped[str]  # file name in the source folder


class Run(Base):
    """One run of the graph."""

    __tablename__ = "run"

    id: Mapped[str] = mapped_column(primary_key=True)  # 20261121T012434Z-1a2b3c4
    seq: Mapped[int] = mapped_column(unique=True)  # 1, 2, ... in the order in which runs were recorded
    tag: Mapped[str]
    commit: Mapped[str] = mapped_column(index=True)
    base_commit: Mapped[str] = mapped_column(index=True)
    trigger: Mapped[str]
    parameters: Mapped[str]  # sha256 of params.yaml
    environment: Mapped[str]  # sha256 of the environment's description, see flows.pipeline.environment
    machine: Mapped[str]  # machine class: processor family and features that change bytes
    state: Mapped[str]  # "done", "failed"
    started: Mapped[datetime]
    ended: Mapped[datetime]


class Execution(Base):
    """What became of one stage in one run."""

    __tablename__ = "execution"
    __table_args__ = (
        UniqueConstraint("run_id", "stage"),
        Index("execution_same_input", "stage", "input_digest"),
        Index("execution_newest", "stage", "action", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"))
    stage: Mapped[str]
    input_digest: Mapped[str]  # of command, parameters and deps, as dvc.lock has them; "" for a stage that failed
    output_digest: Mapped[str]
    seconds: Mapped[float]  # that the run waited for it
    host: Mapped[str]
    action: Mapped[str]  # "ran", "resumed" (ran on from a checkpoint), "restored", "current", "failed", "stopped"
    # what all attempts at it cost, see flows.pipeline.run.Usage; NULL where it was not measured
    machine_seconds: Mapped[float | None]
    cpu_seconds: Mapped[float | None]
    gpu_seconds: Mapped[float | None]
    bytes_in: Mapped[int | None] = mapped_column(BigInteger)
    bytes_out: Mapped[int | None] = mapped_column(BigInteger)
    peak_memory: Mapped[int | None] = mapped_column(BigInteger)


class ModelVersion(Base):
    """A registered model version."""

    __tablename__ = "model_version"
    __table_args__ = (UniqueConstraint("name", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    family: Mapped[str]  # "images", "depth"
    name: Mapped[str]  # "tokenizer"
    number: Mapped[int]  # in MLflow's registry
    weights: Mapped[str] = mapped_column(index=True)  # sha256 of model.safetensors
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), index=True)
    mlflow_run: Mapped[str]
    tag: Mapped[str]  # in git, "tokenizer@v3.0.0"; "" until it is tagged
    metrics: Mapped[dict[str, Any]]  # of the evaluation in its run
    created: Mapped[datetime]

    edges: Mapped[list[Edge]] = relationship(back_populates="version")


class Edge(Base):
    """What a model version was made from: a data version or a parent model, by digest."""

    __tablename__ = "edge"

    version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)  # "data", "parent"
    name: Mapped[str] = mapped_column(primary_key=True)  # the data stage or the parent model
    digest: Mapped[str] = mapped_column(index=True)

    version: Mapped[ModelVersion] = relationship(back_populates="edges")


class Decision(Base):
    """What the gates said about a model version, with every number."""

    __tablename__ = "decision"
    __table_args__ = (Index("decision_by_verdict", "verdict", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_version.id"), index=True)
    run_id: Mapped[str] = mapped_column(index=True)  # the run that was judged; its decisions settle one release
    against: Mapped[int | None]  # the version in production that it was compared with
    verdict: Mapped[str]  # "passed", "refused", "waiting" (for approval)
    reason: Mapped[str]
    rules: Mapped[list[Any]]
    created: Mapped[datetime]


class Release(Base):
    """The models of a family that went to production together; a projection of the pointers in the bucket."""

    __tablename__ = "release"
    __table_args__ = (UniqueConstraint("family", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    family: Mapped[str]
    number: Mapped[int]
    restores: Mapped[int | None]  # a rollback: the release whose members stand again
    pointer: Mapped[str]  # sha256 of the pointer object
    run_id: Mapped[str]  # whose models; not a foreign key: a release may come from another machine's catalogue
    who: Mapped[str]
    why: Mapped[str]
    created: Mapped[datetime]

    members: Mapped[list[Member]] = relationship(back_populates="release")


class Member(Base):
    """One model of a release."""

    __tablename__ = "member"

    release_id: Mapped[int] = mapped_column(ForeignKey("release.id"), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    weights: Mapped[str] = mapped_column(index=True)

    release: Mapped[Release] = relationship(back_populates="members")


class Procedure(Base):
    """A promotion or rollback under way or ended: what `remint doctor` completes or undoes after a kill."""

    __tablename__ = "procedure"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]  # "promote", "rollback"
    family: Mapped[str]
    number: Mapped[int]  # the release it makes
    pointer: Mapped[str]  # the pointer object it writes, as text
    before: Mapped[dict[str, Any]]  # what stood before: release, aliases, tags
    state: Mapped[str] = mapped_column(index=True)  # "open", "done", "undone"
    created: Mapped[datetime]
    ended: Mapped[datetime | None]

    steps: Mapped[list[Step]] = relationship(back_populates="procedure")


class Step(Base):
    """A finished step of a procedure."""

    __tablename__ = "step"

    procedure_id: Mapped[str] = mapped_column(ForeignKey("procedure.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    before: Mapped[dict[str, Any]]
    done: Mapped[datetime]

    procedure: Mapped[Procedure] = relationship(back_populates="steps")


class Entry(Base):
    """One entry of the journal; `digest` covers the entry and the digest before it, so that a changed past shows."""

    __tablename__ = "journal"
    __table_args__ = (Index("journal_by_subject", "kind", "subject", "seq"),)

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    # "release", "rollback", "approval", "reproduction", "alarm", "settled" (an alarm, by its seq),
    # "arrival" (a batch of photographs), "trigger" (a retraining that they started)
    kind: Mapped[str]
    subject: Mapped[str]  # "images", "tokenizer@v3", a stage
    body: Mapped[str]  # JSON with sorted keys: what the digest was taken of
    at: Mapped[datetime]
    previous: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)


class Head(Base):
    """The end of the journal, in one row: without it, entries taken from the end would not show."""

    __tablename__ = "journal_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # always 1
    seq: Mapped[int]
    digest: Mapped[str]
