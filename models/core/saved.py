"""A model on disk: `model.safetensors` and `config.json` in one folder. Never a pickle: loading runs no code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.core.digests import sha256
from data.core.params import UserError

if TYPE_CHECKING:
    from torch import nn

LARGEST = 1 << 20  # bytes of a config.json
AGAIN = "bring the model again"  # what helps where its files do not fit together


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
    return config(place), tensors(place / "model.safetensors")


def config(folder: str | Path) -> dict[str, Any]:
    """What config.json of a model folder holds; UserError where it is no JSON object that any of ours could be."""
    path = find(folder) / "config.json"
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, more than {LARGEST:,}")
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        raise UserError(f"{path} cannot be read: it is nested too deeply; {AGAIN}") from None
    except (OSError, ValueError) as error:  # also what is not UTF-8
        raise UserError(f"{path} cannot be read: {' '.join(str(error).split())}; {AGAIN}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold a JSON object, not {type(values).__name__}")
    return values


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"'{twice}' is there twice")
    return dict(pairs)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def restore(make: Callable[[], nn.Module], state: dict[str, Any], folder: str | Path) -> Any:
    """The net that `make` builds, in evaluation mode, with its folder's weights; UserError where they are of another.

    Shapes are compared before anything has a size: a config.json may ask for more memory than there is.
    """
    import torch

    place = find(folder)
    try:
        with torch.device("meta"):
            wanted = {name: tuple(x.shape) for name, x in make().state_dict().items()}
    except Exception as error:  # whatever a net's layers say of sizes that do not fit together
        raise UserError(f"{place / 'config.json'} describes no net: {' '.join(str(error).split())}; {AGAIN}") from None
    found = {name: tuple(x.shape) for name, x in state.items()}
    if wrong := next((name for name in sorted(wanted.keys() | found) if wanted.get(name) != found.get(name)), None):
        raise UserError(
            f"{place / 'config.json'} describes another net than model.safetensors: {wrong} is "
            f"{found.get(wrong, 'missing')} there, {wanted.get(wrong, 'nothing')} by the description; {AGAIN}"
        )
    net = make()
    net.load_state_dict(state)
    return net.eval()


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
