"""Two releases of a family, put side by side: their pointers and bundles, git, the catalogue."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from flows import repository
from flows.compare import code
from flows.compare.values import Comparison, DataPair, Member, Side, Version
from flows.families import Model, models_in, models_of
from flows.gates.compare import NotComparable, Samples, read_samples
from flows.gates.numbers import numbers
from flows.lineage.code import Code as Recorded
from flows.lineage.down import data_version
from flows.production import bundle, pointers
from flows.production.bucket import Bucket
from flows.production.bundle import Manifest
from flows.production.pointers import Pointer

SAMPLES = "per_sample.parquet"


@dataclass(frozen=True)
class Bundles:
    """A release with the manifest of each of its models."""

    pointer: Pointer
    manifests: Mapping[str, Manifest]

    def version(self, model: str) -> Version | None:
        found = next((one for one in self.pointer.members if one.model == model), None)
        return Version(found.version, found.weights, found.bundle, found.tag) if found else None


def read(bucket: Bucket, family: str, number: int) -> Bundles:
    """A release and its manifests; UserError where there is none of that number, or its bundles were changed."""
    pointer = pointers.read(bucket, family, number)
    return Bundles(pointer, {one.model: bundle.read(bucket, one.model, one.bundle) for one in pointer.members})


def compare(root: Path, session: Session, bucket: Bucket, before: Bundles, after: Bundles) -> Comparison:
    """Everything in which `after` differs from `before`; what cannot be reached is named in the notes."""
    models = list(dict.fromkeys([*before.manifests, *after.manifests]))
    one, other = before.pointer.commit, after.pointer.commit
    notes = [text for text in dict.fromkeys(code.missing(root, commit) for commit in (one, other)) if text]
    reached = not notes
    return Comparison(
        before=_side(before.pointer),
        after=_side(after.pointer),
        members=tuple(_member(root, bucket, model, before, after) for model in models),
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


def _member(root: Path, bucket: Bucket, name: str, before: Bundles, after: Bundles) -> Member:
    old, new = before.manifests.get(name), after.manifests.get(name)
    made = Member(name, before.version(name), after.version(name))
    if old is None or new is None:
        return made
    why_not = _why_not(old, new)
    samples = None
    if why_not:
        reason = f"{why_not}; what the gates measured of both on the same data: remint gates {name} {new.version}"
    else:
        samples, reason = (None, "") if made.same else _samples(root, bucket, name, before, after)
        reason = reason and f"without intervals: {reason}"
    values = numbers(old.evaluation.metrics, new.evaluation.metrics, not why_not, samples)
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
    """What each version showed on every sample; None, with the reason, where a bundle does not hold it."""
    found = []
    for side in (before, after):
        manifest, version = side.manifests[name], side.version(name)
        if version is None or SAMPLES not in {file.name for file in manifest.files}:
            return None, f"release {side.pointer.number} stored no values per sample"
        model = model_of(root, name, manifest)
        with tempfile.TemporaryDirectory() as scratch:
            bundle.fetch(bucket, name, version.bundle, Path(scratch), only=(SAMPLES,))
            try:
                found.append(read_samples(Path(scratch) / SAMPLES, model.section if model else ""))
            except NotComparable as error:
                return None, f"release {side.pointer.number}: {error}"
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
