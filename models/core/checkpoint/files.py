"""A training state as one file: its tensors as safetensors, all else as JSON in the header. Loading runs no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

STATE = "state"  # the header's entry that holds the JSON
PLAIN = (type(None), bool, int, float, str)


def write(path: Path, state: dict[str, Any]) -> None:
    """Save nested dicts, lists and tuples of tensors and plain values; TypeError names a value of another kind."""
    values, tensors = flatten(state)
    try:
        save_file(tensors, path, {STATE: json.dumps(values)})
    except SafetensorError as error:  # a full disk
        raise OSError(f"{path}: {error}") from error


def read(path: Path) -> dict[str, Any]:
    """The state that `write` saved, its tensors on the CPU; OSError for a file that it cannot have written."""
    try:
        with safe_open(path, "pt") as file:
            values = json.loads((file.metadata() or {})[STATE])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dict
        return unflatten(values, tensors)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise OSError(f"{path} holds no training state ({error})") from error


def flatten(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Values for JSON, and the tensors by the places they were at.

    Every JSON object has one key that says what it stands for: {"dict": [[key, value], ...]} (keys may be numbers),
    {"tuple": [...]}, {"tensor": name} with the "order" of its dimensions in memory where that is not row-major.
    """
    tensors: dict[str, Tensor] = {}
    return _flatten(state, STATE, tensors), tensors


def unflatten(values: Any, tensors: dict[str, Tensor]) -> Any:
    """The state of which `flatten` made these; ValueError where it cannot have made them."""
    if isinstance(values, list):
        return [unflatten(v, tensors) for v in values]
    match values:
        case {"dict": items}:
            return {key: unflatten(v, tensors) for key, v in items}
        case {"tuple": items}:
            return tuple(unflatten(v, tensors) for v in items)
        case {"tensor": name, "order": order}:
            return tensors[name].permute(sorted(range(len(order)), key=order.__getitem__))
        case {"tensor": name}:
            return tensors[name]
        case dict():
            raise ValueError(f"a checkpoint holds no {{{', '.join(values)}}}")
    return values


def _flatten(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if type(value) in PLAIN:
        return value
    if isinstance(value, Tensor):
        return _take(value.detach(), place, tensors)
    if isinstance(value, dict):
        return {"dict": [[_key(k, place), _flatten(v, f"{place}/{k}", tensors)] for k, v in value.items()]}
    if isinstance(value, list | tuple):
        items = [_flatten(v, f"{place}/{i}", tensors) for i, v in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    raise TypeError(f"{place} is a {type(value).__name__}; a checkpoint holds tensors and plain values only")


def _take(tensor: Tensor, place: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """Keep a copy of `tensor`, and say where. Memory order is kept, for kernels may add in that order."""
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda d: -strides[d])
    while place in tensors:  # "a/b" at the top and "b" within "a"
        place += "'"
    if tensor.is_contiguous():
        tensors[place] = tensor.cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": place}
    tensors[place] = tensor.permute(order).cpu().clone(memory_format=torch.contiguous_format)
    return {"tensor": place, "order": order}


def _key(key: Any, place: str) -> Any:
    if type(key) not in PLAIN:
        raise TypeError(f"{place} has a key of type {type(key).__name__}; only plain values can be keys")
    return key
