"""A version in MLflow's registry as a run left it, and what its tags there say of the run that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from data.core.params import UserError
from flows.pipeline.families import Model
from flows.pipeline.reference import RUN_TAG
from models.tracking import training_run

DVC_LOCK, DATA = "dvc_lock", "data."  # tags of a version, beside those in models.tracking.training_run


@dataclass(frozen=True)
class Record:
    """What a version was made from, for good: the run that made it first, whose commit is its commit of record.

    Other runs may meet the same model again, judge it and release it; they change nothing of this.
    """

    tag: str  # of the run: run/<id>
    commit: str
    dvc_lock: str  # sha256 of dvc.lock at that commit
    data: Mapping[str, str]  # data stage -> DVC's digests of its outputs


@dataclass(frozen=True)
class Registered:
    """A version in the registry, as a run left it."""

    model: Model
    version: int
    weights: str  # sha256 of model.safetensors
    parents: Mapping[str, str]  # model name -> weights digest
    metrics: Mapping[str, float]  # of this run's evaluation
    mlflow_run_id: str
    new: bool = True  # False: this model had been registered before
    tags: Mapping[str, str] = field(default_factory=dict)
    config: str = ""  # sha256 of config.json

    @property
    def record(self) -> Record:
        """By the version's own tags in MLflow."""
        lacking = [name for name in (RUN_TAG, training_run.COMMIT, DVC_LOCK) if not self.tags.get(name)]
        if lacking:
            raise UserError(
                f"{self.model.name} v{self.version} has no tag {lacking[0]} in MLflow's registry, so nothing says "
                "which run made it; delete that version there and register it again: remint promote FAMILY RUN"
            )
        data = {key.removeprefix(DATA): value for key, value in self.tags.items() if key.startswith(DATA)}
        return Record(self.tags[RUN_TAG], self.tags[training_run.COMMIT], self.tags[DVC_LOCK], data)
