"""Two releases of a family, put side by side: their pointers and bundles, git, the catalogue."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from flows import repository
from flows.pipeline.families import Model, models_in, models_of
from flows.release import bundle, pointers
from flows.release.bundle import Manifest
from flows.release.gates.compare import NotComparable, Samples, read_samples
from flows.release.gates.numbers import numbers
from flows.release.gates.policy import Gate, gates_at
from flows.release.pointers import Pointer
from flows.show.diff import code
from flows.show.diff.values import Comparison, DataPair, Member, Side, Version
from flows.show.lineage.code import Code as Recorded
from flows.show.lineage.down import data_version
from flows.storage.protocol import Bucket

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
    return Bundles(_side(pointer), manifests, versions)


def compare(root: Path, session: Session, bucket: Bucket, before: Bundles, after: Bundles) -> Comparison:
    """Everything in which `after` differs from `before`; what cannot be reached is named in the notes."""
    models = list(dict.fromkeys([*before.manifests, *after.manifests]))
    one, other = before.side.commit, after.side.commit
    notes = [text for text in dict.fromkeys(code.missing(root, commit) for commit in (one, other)) if text]
    reached = not notes
    gates = gates_at(root, other) if reached else {}
    return Comparison(
        before=before.side,
        after=after.side,
        members=tuple(_member(root, bucket, model, before, after, gates) for model in models),
        parameters=code.parameters(root, one, other, _used(root, other, models)) if reached else None,
        data=_data(session, before, after),
        code=code.between(root, one, other) if reached else None,
        notes=tuple(notes),
    )


def evaluations(root: Path, before: Bundles, after: Bundles) -> list[str]:
    """The names under artifacts/evaluate that show the models of either release."""
    found = [model_of(root, name, m) for side in (before, after) for name, m in side.manifests.items()]
    return list(dict.fromkeys(model.evaluation for model in found if model))


def model_of(root: Path, name: str, manifest: Manifest) -> Model | None:
    """A model as the dvc.yaml of its own commit has it, else as the checkout's; None where neither names it."""
    there = not code.missing(root, manifest.lineage.commit)
    text = repository.file_at(root, manifest.lineage.commit, "dvc.yaml") if there else None
    known = models_in(text) if text else models_of(root)
    return next((model for model in known if model.name == name), None)


def _side(pointer: Pointer) -> Side:
    return Side(
        family=pointer.family,
        number=pointer.number,
        run=pointer.run,
        commit=pointer.commit,
        who=pointer.who,
        why=pointer.why,
        at=pointer.at,
        restores=pointer.restores,
    )


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
    return Member(made.model, made.before, made.after, values, reason)


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


def _used(root: Path, commit: str, models: list[str]) -> dict[str, set[str]]:
    recorded = Recorded(root, commit)
    return {model: recorded.sections(model) for model in models}


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
