"""Load a trained model by its name in the registry or from a folder: `models.load("tokenizer@production")`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from data.core import digests
from data.core.params import UserError, near
from models.core import saved
from models.tracking import training_run

# A model folder says what it is by a key of its config.json; each family's module has `load(folder)`.
LOADERS = {
    "titok": "models.tokenizer.tokenizer",
    "sampler": "models.generator.load",
    "backbone_config": "models.depth.net",  # transformers' Depth Anything
}
HELP = "it is not loaded; remint doctor says what helps"
REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]*)@(?P<which>[A-Za-z][A-Za-z0-9_-]*)")


def load(reference: str | Path) -> Any:
    """Return the model that "NAME@ALIAS", "NAME@vN" or a model folder stands for, ready to use.

    A tokenizer has `.encode` and `.decode`; for a generator see `models.generator.load.generate`, for depth
    `models.depth.net.predict`. UserError when there is no such model, alias, version or folder.
    """
    folder = Path(reference)
    if not folder.is_dir():
        folder = fetch(str(reference))
    return importlib.import_module(loader_of(folder)).load(folder)


def loader_of(folder: Path) -> str:
    """Tell from config.json which module loads a model folder."""
    config = saved.config(folder)
    for key, module in LOADERS.items():
        if key in config:
            return module
    path = saved.find(folder) / "config.json"
    raise UserError(
        f"{path} is of no model that can be loaded: it has none of the keys {', '.join(LOADERS)}; name another folder"
    )


def fetch(reference: str) -> Path:
    """Bring a registered version to this machine and return the model folder in it."""
    name, _, which = reference.partition("@")
    if not REFERENCE.fullmatch(reference):
        raise UserError(f"'{reference}' is neither a folder nor NAME@ALIAS or NAME@vN, such as tokenizer@production")
    client, reason = training_run.connect()
    if client is None:
        raise UserError(f"cannot look up {reference}: {reason}")
    version = find(client, name, which)
    folder = brought(client, version)
    if wrong := next(differing(folder, version), None):
        raise UserError(
            f"{reference} (v{version.version}) is not loaded: {wrong}. The files that were released: remint pull; "
            "what else is wrong: remint doctor --deep"
        )
    return folder


def brought(client: Any, version: Any) -> Path:
    """The model folder of a registered version on this machine, not held against anything yet."""
    import mlflow

    location = logged_model(client, version).artifact_location
    packed = Path(mlflow.artifacts.download_artifacts(artifact_uri=location, tracking_uri=client.tracking_uri))
    return _inside(packed, f"{version.name}@v{version.version}")


def differing(folder: Path, version: Any) -> Iterator[str]:
    """What of a registered version's files, in `folder`, is not as its tags in the registry say."""
    for tag, name in ((training_run.WEIGHTS, "model.safetensors"), (training_run.CONFIG, "config.json")):
        expected, path = version.tags.get(tag), folder / name
        if expected is None and tag == training_run.CONFIG:  # versions of before this tag
            continue
        found = f"sha256 {digests.sha256(path)}" if path.is_file() else "no such file"
        if expected is None:
            yield f"the version has no tag '{tag}' that its {name} could be held against"
        elif found != f"sha256 {expected}":
            yield f"{path} was changed: expected sha256 {expected}, found {found.removeprefix('sha256 ')}"


def _inside(packed: Path, reference: str) -> Path:
    """The model folder that a downloaded version's MLmodel file names; UserError when it leads out of the download."""
    try:
        about = yaml.safe_load((packed / "MLmodel").read_text())
        named = str(about["flavors"]["python_function"]["artifacts"]["model"]["path"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{reference}: its MLmodel file says of no model where it lies ({error!r}); {HELP}") from None
    folder = (packed / named).resolve()
    if not folder.is_relative_to(packed.resolve()):
        raise UserError(f"{reference}: its MLmodel file names {named!r}, which lies outside of it; {HELP}")
    return folder


def find(client: Any, name: str, which: str) -> Any:
    """Return MLflow's version of a model for an alias ("production") or a number ("v3")."""
    known = {model.name: model for model in client.search_registered_models(max_results=1000)}
    if name not in known:
        raise UserError(f"no model '{name}' in the registry{near(name, known)}")
    aliases = dict(known[name].aliases)
    number = which[1:] if re.fullmatch(r"v\d+", which) else aliases.get(which)
    versions = {str(v.version): v for v in client.search_model_versions(f"name='{name}'")}
    if number is None or str(number) not in versions:
        choices = [*aliases, *(f"v{v}" for v in sorted(versions, key=int))]
        raise UserError(f"{name} has no version or alias '{which}'{near(which, choices)}")
    return versions[str(number)]


def logged_model(client: Any, version: Any) -> Any:
    """MLflow's record of the model behind a registered version: its metrics and where its files lie.

    UserError if it was deleted there.
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.get_logged_model(model_id(version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise UserError(
            f"{version.name} v{version.version}: MLflow's model {model_id(version)}, which has its files, was deleted; "
            "remint doctor says what helps"
        ) from None


def model_id(version: Any) -> str:
    """The model behind a registered version."""
    # The version's own `model_id` is lost in SQL registries (MLflow 3.17); its source is "models:/<model id>".
    return str(version.source.rpartition("/")[2])
