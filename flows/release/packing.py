"""A model folder as an MLflow pyfunc: code of models/serving, safetensors, signature, example, requirements."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from flows.pipeline.families import Model, models_of


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
        return ModelSignature(
            images, Schema([tokens, TensorSpec(np.dtype("uint8"), (-1, *image.shape), "reconstructions")])
        ), image[None]
    sized = Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1, 3))])  # positions are interpolated
    return ModelSignature(sized, Schema([TensorSpec(np.dtype("float32"), (-1, -1, -1))])), image[None]


def _requirements(model: Model) -> list[str]:
    """What models/serving imports, in the versions that are installed; torch without its local suffix (+cpu)."""
    names = [
        "mlflow",
        "numpy",
        "pyyaml",
        "safetensors",
        "torch",
        *(["transformers"] if model.serving == "depth" else []),
    ]
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]
