"""Two releases of a family, or one and what a run made of it, put side by side: bundles, git, the catalogue."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from data.core import plain_yaml
from data.core.digests import sha256
from data.core.params import UserError
from flows import repository
from flows.catalogue.registered import DATA, DVC_LOCK, Registered
from flows.catalogue.schema import ModelVersion
from flows.pipeline.families import Model, evaluation_of, models_in, models_of, parents_of
from flows.pipeline.lock import data_of
from flows.pipeline.reference import RUN_TAG
from flows.pipeline.run import RunInfo
from flows.release import bundle, pointers, recorded
from flows.release.bundle import Manifest
from flows.release.gates import record
from flows.release.gates.compare import NotComparable, Samples, numbers, read_samples
from flows.release.gates.policy import Gate, gates_at
from flows.release.stores import Stores
from flows.show.diff import commits
from flows.show.diff.comparison import Comparison, DataPair, Member, Side, Version
from flows.show.lineage.down import Code, data_version
from flows.storage.protocol import Bucket
from models.core.saved import weights_digest
from models.tracking import training_run

SAMPLES = "per_sample.parquet"


@dataclass(frozen=True)
class Bundles:
    """A release, or a run's candidate for one, with the manifest of each of its models.

    paths: by model and file name, where the files of a candidate lie; those of a release are fetched from the bucket.
    """

    side: Side
    manifests: Mapping[str, Manifest]
    versions: Mapping[str, Version]
    paths: Mapping[str, Mapping[str, Path]] | None = None

    def samples(self, bucket: Bucket, model: str, section: str) -> Samples:
        """What a model showed on every sample; NotComparable where that was not stored."""
        manifest = self.manifests[model]
        if SAMPLES not in {file.name for file in manifest.files}:
            raise NotComparable("no values per sample were stored")
        if self.paths is not None:
            return read_samples(self.paths[model][SAMPLES], section)
        with tempfile.TemporaryDirectory() as scratch:
            bundle.fetch(bucket, model, self.versions[model].bundle, Path(scratch), only=(SAMPLES,))
            return read_samples(Path(scratch) / SAMPLES, section)


def read(bucket: Bucket, family: str, number: int) -> Bundles:
    """A release and its manifests; UserError where there is none of that number, or its bundles were changed."""
    pointer = pointers.read(bucket, family, number)
    manifests = {one.model: bundle.read(bucket, one.model, one.bundle) for one in pointer.members}
    versions = {one.model: Version(one.version, one.weights, one.bundle, one.tag) for one in pointer.members}
    side = Side(**{one.name: getattr(pointer, one.name) for one in fields(Side)})
    return Bundles(side, manifests, versions)


@contextmanager
def candidate(stores: Stores, family: str, wanted: str) -> Iterator[Bundles]:
    """A run's models of a family; their files are there until the context ends.

    UserError if there is no such run, it has no such family, its outputs are not here, or it was never registered.
    """
    found = recorded.find(stores, wanted)
    with recorded.opened(stores, found, family) as ran, stores.catalogue.read() as session:
        lock = sha256(ran.workspace / "dvc.lock")
        made = [
            bundle.pack(ran, _registered(session, ran, model, lock), "")
            for model in models_of(ran.workspace)
            if model.family == family
        ]
        manifests = {one.manifest.model: one.manifest for one in made}
        versions = {name: Version(one.version, one.weights, bundle.digest(one), "") for name, one in manifests.items()}
        at = ran.started.isoformat(timespec="seconds")
        side = Side(family, None, ran.id, ran.commit, "", "not released", at, None)
        yield Bundles(side, manifests, versions, {one.manifest.model: one.paths for one in made})


def compare(root: Path, session: Session, bucket: Bucket, before: Bundles, after: Bundles) -> Comparison:
    """Everything in which `after` differs from `before`; what cannot be reached is named in the notes."""
    models = list(dict.fromkeys([*before.manifests, *after.manifests]))
    one, other = before.side.commit, after.side.commit
    notes = tuple(text for text in dict.fromkeys(commits.missing(root, commit) for commit in (one, other)) if text)
    reached = not notes
    gates = gates_at(root, other) if reached else {}
    code = Code(root, other)
    used = {model: code.sections(model) for model in models}
    return Comparison(
        before=before.side,
        after=after.side,
        members=tuple(_member(root, bucket, model, before, after, gates) for model in models),
        parameters=commits.parameters(root, one, other, used) if reached else None,
        data=_data(session, before, after),
        code=commits.between(root, one, other) if reached else None,
        notes=notes,
    )


def evaluations(root: Path, before: Bundles, after: Bundles) -> list[str]:
    """The names under artifacts/evaluate that show the models of either release."""
    found = [model_of(root, name, m) for side in (before, after) for name, m in side.manifests.items()]
    return list(dict.fromkeys(model.evaluation for model in found if model))


def model_of(root: Path, name: str, manifest: Manifest) -> Model | None:
    """A model as the dvc.yaml of its own commit has it, else as the checkout's; None where neither names it."""
    there = not commits.missing(root, manifest.lineage.commit)
    text = repository.file_at(root, manifest.lineage.commit, "dvc.yaml") if there else None
    known = models_in(text) if text else models_of(root)
    return next((model for model in known if model.name == name), None)


def _registered(session: Session, ran: RunInfo, model: Model, lock: str) -> Registered:
    """A model of the run as the registry would have it, read from its outputs and the catalogue alone."""
    folder = ran.workspace / model.path
    weights = weights_digest(folder)
    data = data_of(plain_yaml.recorded((ran.workspace / "dvc.lock").read_bytes()) or {}, model.path.as_posix())
    tags = {
        RUN_TAG: ran.tag,
        training_run.COMMIT: ran.commit,
        DVC_LOCK: lock,
        **{f"{DATA}{k}": v for k, v in data.items()},
    }
    return Registered(
        model=model,
        version=_number(session, ran, model.name, weights),
        weights=weights,
        parents=parents_of(ran.workspace, model),
        metrics=evaluation_of(ran.workspace, model),
        mlflow_run_id="",
        tags=tags,
        config=sha256(folder / "config.json"),
    )


def _number(session: Session, ran: RunInfo, name: str, weights: str) -> int:
    judged = [one.decision.version for one in record.of_run(session, ran.id) if one.decision.model == name]
    same = select(ModelVersion.number).where(ModelVersion.name == name, ModelVersion.weights == weights)
    found = judged or session.scalars(same.order_by(ModelVersion.number.desc())).all()
    if not found:
        raise UserError(f"{name} of run {ran.id} is not registered; remint judge {ran.id} registers and judges it")
    return found[0]


def _member(
    root: Path, bucket: Bucket, name: str, before: Bundles, after: Bundles, gates: Mapping[str, Gate]
) -> Member:
    old, new = before.manifests.get(name), after.manifests.get(name)
    made = Member(name, before.versions.get(name), after.versions.get(name))
    if old is None or new is None:
        return made
    why_not = _why_not(old, new)
    samples = None
    if why_not:
        reason = f"{why_not}; what the gates measured of both on the same data: remint gates {name} {new.version}"
    else:
        samples, reason = (None, "") if made.same else _samples(root, bucket, name, before, after)
        reason = reason and f"without intervals: {reason}"
    margins = gates.get(name, Gate()).margins
    values = numbers(old.evaluation.metrics, new.evaluation.metrics, not why_not, samples, margins)
    return replace(made, numbers=values, note=reason)


def _why_not(before: Manifest, after: Manifest) -> str:
    """Why the numbers of two bundles cannot be held against each other, "" if they can."""
    one, other = before.evaluation.context, after.evaluation.context
    if not one or not other:
        return "an evaluation has no context: not comparable"
    return "" if one == other else "evaluated on other data, or by other code: not comparable"


def _samples(
    root: Path, bucket: Bucket, name: str, before: Bundles, after: Bundles
) -> tuple[tuple[Samples, Samples] | None, str]:
    """What each version showed on every sample; None, with the reason, where one did not keep it."""
    found = []
    for side in (before, after):
        model = model_of(root, name, side.manifests[name])
        try:
            found.append(side.samples(bucket, name, model.section if model else ""))
        except NotComparable as error:
            return None, f"{side.side.title}: {error}"
    return (found[0], found[1]), ""


def _data(session: Session, before: Bundles, after: Bundles) -> tuple[DataPair, ...]:
    """The data versions of both, by stage; several where a release's models come from different runs."""
    digests: dict[str, tuple[set[str], set[str]]] = {}
    for place, side in enumerate((before, after)):
        for manifest in side.manifests.values():
            for stage, digest in manifest.lineage.data.items():
                digests.setdefault(stage, (set(), set()))[place].add(digest)
    return tuple(
        DataPair(stage, *(tuple(data_version(session, stage, digest) for digest in sorted(side)) for side in sides))
        for stage, sides in sorted(digests.items())
    )
