"""The tokenizer as a pyfunc: uint8 images (N, H, W, 3) -> tokens (N, K) and reconstructions (N, H, W, 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class Tokenizer(PythonModel):
    """Encodes images of the size it was trained for and shows what the tokens keep of them."""

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
    ) -> dict[str, np.ndarray]:
        from models.core.images import to_array, to_tensor, unit

        tokens = self.net.encode(unit(to_tensor(np.asarray(model_input, np.uint8))))
        return {"tokens": tokens.numpy(), "reconstructions": to_array(self.net.decode(tokens))}


set_model(Tokenizer())
