"""A model on disk: `model.safetensors` and `config.json` in one folder. Never a pickle: loading runs no code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from data.params import UserError


def write(folder: Path, state: dict[str, Any], config: dict[str, Any]) -> None:
    """Write weights and configuration; the same tensors and values give the same bytes."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    # a plain row-major copy each: views and channels-last strides would not be stored as they are
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in sorted(state.items())}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config, state) of a model folder, or of the one in a stage's output folder."""
    place = find(folder)
    return json.loads((place / "config.json").read_text()), tensors(place / "model.safetensors")


def tensors(path: Path) -> dict[str, Any]:
    """The tensors in a safetensors file; UserError names a file that is none, or is cut off."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); run the stage that writes it again (dvc repro)") from None


def find(folder: str | Path) -> Path:
    """The model folder: `folder` itself or `folder`/model; UserError where neither holds a whole model."""
    inner = Path(folder) / "model"
    place = inner if inner.is_dir() else Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (place / name).exists():
            raise UserError(f"{place / name} does not exist; run the stage that trains it first (dvc repro)")
    return place


def weights_digest(folder: str | Path) -> str:
    """SHA-256 of a model's weights: its identity, by which a generator knows its tokenizer."""
    return sha256(find(folder) / "model.safetensors")


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
