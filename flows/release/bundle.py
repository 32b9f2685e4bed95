"""A model as it is published: its files under a prefix that is the digest of their manifest.

    bundles/<model>/<sha256 of manifest.json>/manifest.json, model.safetensors, config.json, metrics.json, ...

The manifest is written last, so a bundle that can be read is whole; and it never changes, for its name is its digest.
Nothing that comes out of a bundle runs code: weights are safetensors, the rest is JSON and Parquet.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data.core.digests import sha256
from data.core.files import write
from data.core.params import UserError, build
from flows.release.pointers import DIGEST, NAME, digest, text, values
from flows.storage.protocol import SMALL, Bucket, NotThere, Taken, Watch
from flows.storage.transfer import WrongContent

if TYPE_CHECKING:
    from flows.catalogue.registered import Registered
    from flows.pipeline.run import RunInfo

MANIFEST = "manifest.json"
NEEDED = ("model.safetensors", "config.json")
TRAINED = (*NEEDED, "preprocessor_config.json")  # of the model's folder; transformers' pipelines read the last
FILES = (*TRAINED, "metrics.json", "per_sample.parquet")  # no other name can be in a bundle


@dataclass(frozen=True)
class File:
    name: str
    size: int  # bytes
    sha256: str

    def __post_init__(self) -> None:
        if self.name not in FILES:
            raise ValueError(f"{self.name!r} cannot be in a bundle; its files are {', '.join(FILES)}")
        if self.size < 0 or not DIGEST.fullmatch(self.sha256):
            raise ValueError(f"{self.name} needs a size in bytes and a SHA-256 digest")
        if self.name.endswith(".json") and self.size > SMALL:
            raise ValueError(f"{self.name} of {self.size} bytes is no such file; {SMALL} at most")


@dataclass(frozen=True)
class Lineage:
    """What the model was made from: enough to make it again."""

    run: str
    commit: str
    tag: str  # of the run, in git
    dvc_lock: str  # sha256 of dvc.lock at that commit
    parameters: str  # sha256 of params.yaml
    data: dict[str, str]  # data stage -> DVC's digests of its outputs
    parents: dict[str, str]  # model -> weights digest

    def __post_init__(self) -> None:
        if not all(isinstance(value, str) for value in (*self.data.values(), *self.parents.values())):
            raise ValueError("data and parents must be digests by name")


@dataclass(frozen=True)
class Evaluation:
    context: str  # sha256 of what the numbers rest on; only numbers of one context may be compared
    metrics: dict[str, float]

    def __post_init__(self) -> None:
        for name, value in self.metrics.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"metrics.{name} is not a number: {value!r}")


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds and where it comes from."""

    model: str
    version: int  # in MLflow's registry
    weights: str  # sha256 of model.safetensors
    tag: str  # in git: "tokenizer@v3.0.0"
    files: tuple[File, ...]  # sorted by name
    lineage: Lineage
    evaluation: Evaluation

    def __post_init__(self) -> None:
        names = [file.name for file in self.files]
        if not NAME.fullmatch(self.model):
            raise ValueError(f"{self.model!r} is no name of a model")
        if names != sorted(set(names)) or not set(NEEDED) <= set(names):
            raise ValueError(f"files must be sorted, each once, with {' and '.join(NEEDED)} among them")
        if self.weights != next(file.sha256 for file in self.files if file.name == "model.safetensors"):
            raise ValueError("weights is not the digest of model.safetensors")

    @property
    def config(self) -> str:
        """SHA-256 of config.json."""
        return next(file.sha256 for file in self.files if file.name == "config.json")

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Bundle:
    """A manifest, and where its files lie before they are published."""

    manifest: Manifest
    paths: Mapping[str, Path]  # by file name


def pack(run: RunInfo, one: Registered, tag: str) -> Bundle:
    """A run's model as a bundle, read from the run's workspace; `tag` is the version's tag in git."""
    from flows.release.gates.evaluation import context  # not above: who pulls a bundle has neither clone nor gates

    trained, judged = run.workspace / one.model.path, run.workspace / one.model.evaluated
    strangers = sorted(path.name for path in trained.iterdir() if path.name not in TRAINED) if trained.is_dir() else []
    if strangers:
        raise UserError(
            f"{one.model.name} cannot be published: its folder {one.model.path} holds {strangers[0]}, and a bundle "
            f"would leave it out; of a model it takes {', '.join(TRAINED)}; write it beside that folder"
        )
    paths = {name: (trained if name in TRAINED else judged) / name for name in sorted(FILES)}
    there = {name: path for name, path in paths.items() if name in NEEDED or path.exists()}
    try:
        manifest = Manifest(
            model=one.model.name,
            version=one.version,
            weights=one.weights,
            tag=tag,
            files=tuple(File(name, path.stat().st_size, sha256(path)) for name, path in there.items()),
            lineage=_lineage(run, one),
            evaluation=Evaluation(context(run.workspace, one.model), {k: float(v) for k, v in one.metrics.items()}),
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{one.model.name} cannot be published: {error.filename} does not exist; its stage has to write it"
        ) from None
    except ValueError as error:
        raise UserError(f"{one.model.name} cannot be published: {error}; run its stages again") from None
    return Bundle(manifest, there)


def _lineage(run: RunInfo, one: Registered) -> Lineage:
    """What made the version, by its commit of record: that of the run that made it, which may be an earlier one."""
    from flows import repository

    made = one.record
    parameters = run.parameters
    if made.commit != run.commit:
        found = repository.digest_at(run.workspace, made.commit, "params.yaml")
        if found is None:
            raise UserError(
                f"{one.model.name} v{one.version} was made by {made.tag}, and this clone does not have its commit "
                f"{made.commit[:12]}; git fetch --tags, then again"
            )
        parameters = found
    run_id = made.tag.removeprefix("run/")
    return Lineage(run_id, made.commit, made.tag, made.dvc_lock, parameters, dict(made.data), dict(one.parents))


def publish(bucket: Bucket, bundle: Bundle) -> str:
    """Put the bundle into the bucket, the manifest last, and return its digest. May be called again at any time."""
    manifest, name = bundle.manifest, digest(bundle.manifest)
    place = prefix(manifest.model, name)
    for file in manifest.files:
        bucket.upload(f"{place}/{file.name}", bundle.paths[file.name], file.sha256)
    try:
        bucket.create(f"{place}/{MANIFEST}", text(manifest).encode())
    except Taken:
        read(bucket, manifest.model, name)
    return name


def read(bucket: Bucket, model: str, name: str) -> Manifest:
    """The manifest of a published bundle, verified; `name` is its digest."""
    key = f"{prefix(model, name)}/{MANIFEST}"
    try:
        raw = bucket.read(key)
    except NotThere:
        raise UserError(f"{bucket.name} holds no bundle {name} of {model}; publish it again: remint doctor") from None
    return parse(raw, model, name, f"{bucket.name}/{key}")


def fetch(
    bucket: Bucket,
    model: str,
    name: str,
    into: Path,
    *,
    only: Collection[str] = FILES,
    watch: Watch | None = None,
) -> Manifest:
    """Bring a bundle's files (or those of the names in `only`) into a folder; each is verified before it is there.

    Files that are there already are kept if they are right. The manifest comes last.
    """
    manifest = read(bucket, model, name)
    into.mkdir(parents=True, exist_ok=True)
    for file in manifest.files:
        path, key = into / file.name, f"{prefix(model, name)}/{file.name}"
        if file.name not in only:
            continue
        if not _right(path, file):
            bucket.download(key, path, file.size, file.sha256, watch)
        elif watch:
            watch(file.size)
        _check(path, f"{bucket.name}/{key}")
    write(into / MANIFEST, text(manifest).encode())
    return manifest


def verify(bucket: Bucket, model: str, name: str, deep: bool = True) -> Manifest:
    """The manifest of a bundle of which all is there; UserError names the first file that is gone or was changed.

    deep: digests too, for which every byte is read; else sizes.
    """
    manifest = read(bucket, model, name)
    for file, wrong in damaged(bucket, manifest, deep):
        raise UserError(f"{file.name} of {manifest.tag}: {wrong}; mend it first: remint doctor --deep --repair")
    return manifest


def damaged(bucket: Bucket, manifest: Manifest, deep: bool) -> Iterator[tuple[File, str]]:
    """The files of a bundle that are gone or were changed, each with what is wrong in words."""
    place = prefix(manifest.model, digest(manifest))
    for file in manifest.files:
        try:
            bucket.verify(f"{place}/{file.name}", file.size, file.sha256 if deep else "")
        except (NotThere, WrongContent) as error:
            yield file, str(error)


def at(folder: Path, model: str, name: str) -> Manifest | None:
    """The manifest of a bundle that was fetched into `folder`, None unless all of it is there and right."""
    try:
        manifest = parse((folder / MANIFEST).read_bytes(), model, name, str(folder / MANIFEST))
    except (OSError, UserError):
        return None
    return manifest if all(_right(folder / file.name, file) for file in manifest.files) else None


def parse(raw: bytes, model: str, name: str, where: str) -> Manifest:
    """The manifest in these bytes; UserError if they do not have the digest `name` or are not of that model."""
    found = hashlib.sha256(raw).hexdigest()
    if found != name:
        raise UserError(f"{where} has the wrong content: expected sha256 {name}, found {found}; it was changed")
    manifest = build(Manifest, values(raw, where, "a bundle's manifest"), where)
    if manifest.model != model:
        raise UserError(f"{where} is of the model {manifest.model}, not {model}; it was moved. Publish the model again")
    if text(manifest).encode() != raw:
        raise UserError(f"{where} is not as Remint writes it; publish the model again")
    return manifest


def prefix(model: str, name: str) -> str:
    """Where a bundle lies; UserError for a name that could lead elsewhere."""
    if not NAME.fullmatch(model) or not DIGEST.fullmatch(name):
        raise UserError(f"{model!r} with digest {name!r} names no bundle; publish the model again: remint doctor")
    return f"bundles/{model}/{name}"


def _right(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256(path) == file.sha256


def _check(path: Path, where: str) -> None:
    """UserError unless the file is what its name says; weights are mapped, not loaded."""
    if path.suffix == ".json":
        try:
            json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            raise UserError(f"{where} is not JSON; nothing was installed. Publish the model again") from None
    elif path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy"):  # reads the header: names, shapes, and that they fill the file
                pass
        except SafetensorError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{where} is not a safetensors file ({reason}); nothing was installed. Publish the model again"
            ) from None
