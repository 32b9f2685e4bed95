"""A depth model as a pyfunc: uint8 images (N, H, W, 3) -> float32 disparity (N, H, W), larger = nearer.

Disparity is known up to scale and shift, and has the size of its picture, whatever that is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class Depth(PythonModel):
    """Predicts one disparity map per image."""

    def load_context(self, context: PythonModelContext) -> None:
        try:
            from models.registry import load
        except ImportError as error:
            raise ImportError(
                "another package `models` or `data` was imported before; this model brings its own"
            ) from error

        self.net = load(Path(context.artifacts["model"]))

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        from models.depth.net import predict

        return predict(self.net, np.asarray(model_input, np.uint8))


set_model(Depth())
