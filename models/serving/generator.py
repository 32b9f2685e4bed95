"""A generator with its tokenizer as a pyfunc: labels (N,) and a seed -> uint8 images (N, H, W, 3)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext


class Generator(PythonModel):
    """Draws one image per label; the same labels and the same seed draw the same images."""

    def load_context(self, context: PythonModelContext) -> None:
        try:
            from models.registry import load
        except ImportError as error:
            raise ImportError(
                "another package `models` or `data` was imported before; this model brings its own"
            ) from error
        from models.generator.load import check_tokenizer

        self.generator = load(Path(context.artifacts["model"]))
        check_tokenizer(self.generator, Path(context.artifacts["tokenizer"]))
        self.tokenizer = load(Path(context.artifacts["tokenizer"]))

    def predict(
        self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        import torch

        from models.core.images import to_array
        from models.generator.load import BATCH, draw_tokens

        labels = torch.from_numpy(np.asarray(model_input, np.int64).reshape(-1))
        tokens = draw_tokens(self.generator, labels, seed=int((params or {}).get("seed", 0)))
        return np.concatenate([to_array(self.tokenizer.decode(part)) for part in tokens.split(BATCH)])


set_model(Generator())
