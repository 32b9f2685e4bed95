"""Models in MLflow's format, a pyfunc: code of models/serving, safetensors, signature, example, requirements."""

from __future__ import annotations

import json
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from flows.pipeline.families import Model, models_of
from flows.pipeline.run import RunInfo
from models.tracking.names import flatten


def log(client: Any, run: RunInfo, model: Model, run_id: str) -> str:
    """Write the model in MLflow's format into the artifact store and return its id.

    The same steps as `mlflow.pyfunc.log_model`, without its trial prediction, which would import torch here
    and take seconds per model; the evaluation stage has just used these weights.
    """
    import mlflow
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    experiment = client.get_run(run_id).info.experiment_id
    config = json.loads((run.workspace / model.path / "config.json").read_text())
    params = {key: str(value)[:250] for key, value in flatten(config).items()}
    logged = client.create_logged_model(
        experiment, name=model.name, source_run_id=run_id, params=params, model_type=model.serving
    )
    about = mlflow.models.Model(
        artifact_path=logged.artifact_location, model_uuid=logged.model_id, run_id=run_id, model_id=logged.model_id
    )
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / "model"
        pack(run.workspace, model, packed, about)
        client.log_model_artifacts(logged.model_id, str(packed))
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return str(logged.model_id)


def pack(workspace: Path, model: Model, target: Path, about: Any = None) -> None:
    """Write a model folder as an MLflow pyfunc: code, weights, signature, an example, exact requirements."""
    import mlflow

    signature, example = _interface(workspace, model)
    artifacts = {"model": (workspace / model.path).as_uri()}  # MLflow would read an address into some paths
    if model.bound_to:
        bound = {m.name: m.path for m in models_of(workspace)}[model.bound_to]
        artifacts[model.bound_to] = (workspace / bound).as_uri()
    mlflow.pyfunc.save_model(
        target,
        mlflow_model=about,
        python_model=workspace / "models" / "serving" / f"{model.serving}.py",
        code_paths=[str(workspace / "data"), str(workspace / "models")],
        artifacts=artifacts,
        signature=signature,
        input_example=example,
        pip_requirements=_requirements(model),
    )


def _interface(workspace: Path, model: Model) -> tuple[Any, Any]:
    """Signature and input example: the first held-out scene, or one label per class."""
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    if model.serving == "generator":
        classes = json.loads((workspace / model.path / "config.json").read_text())["classes"]
        labels = Schema([TensorSpec(np.dtype("int64"), (-1,))])
        images = Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))])
        seed = ParamSchema([ParamSpec("seed", "long", 0)])
        return ModelSignature(labels, images, seed), np.arange(len(classes))

    from data.core.samples import Samples

    image = Samples(workspace / "artifacts" / "scenes", "val").image(0)
    images = Schema([TensorSpec(np.dtype("uint8"), (-1, *image.shape))])
    if model.serving == "tokenizer":
        tokens = TensorSpec(np.dtype("int64"), (-1, -1), "tokens")
        both = Schema([tokens, TensorSpec(np.dtype("uint8"), (-1, *image.shape), "reconstructions")])
        return ModelSignature(images, both), image[None]
    sized = Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))])  # positions are interpolated
    return ModelSignature(sized, Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1))])), image[None]


def _requirements(model: Model) -> list[str]:
    """What models/serving imports, in the versions that are installed; torch without its local suffix (+cpu)."""
    names = ["mlflow", "numpy", "pyyaml", "safetensors", "torch"]
    names += ["transformers"] if model.serving == "depth" else []
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]
