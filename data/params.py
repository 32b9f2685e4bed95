"""Parameters: one section of `params.yaml` becomes one frozen dataclass; anything unexpected is an error."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")
SHARED = ("seed", "threads", "accelerate")  # top-level values that any section may ask for by naming a field so


class UserError(Exception):
    """A mistake of the user's: entry points print it as one line and exit with code 2, without a traceback."""


def load(cls: type[T], section: str, path: str | Path = "params.yaml") -> T:
    """Read `section` ("generator.maskgit" walks down) of the YAML file into the frozen dataclass `cls`.

    Raises UserError that names file, section.key and value when a key is unknown or missing or of the
    wrong type. An int is accepted where a float is wanted; nothing else is converted.
    """
    whole = read(path)
    values: Any = whole
    for part in section.split("."):
        if not isinstance(values, dict) or part not in values:
            raise UserError(f"{path}: no section '{section}'{near(part, values or {})}")
        values = values[part]
    if not isinstance(values, dict):
        raise UserError(f"{path}: '{section}' must be a section of key: value lines, not {values!r}")
    return build(cls, values, where=f"{path}: {section}", shared={k: whole[k] for k in SHARED if k in whole})


def read(path: str | Path) -> dict[str, Any]:
    """The YAML mapping in `path`; UserError when it is missing or is not one."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run from the repository's root") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold key: value lines, not {type(values).__name__}")
    return values


def build(cls: type[T], values: dict[str, Any], where: str, shared: dict[str, Any] | None = None) -> T:
    """Make the dataclass from plain values, checking names and types; nested dataclasses are built too."""
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UserError(f"{where}.{key} is not a parameter{near(key, fields)}")
    values = {**{k: v for k, v in (shared or {}).items() if k in fields}, **values}
    made = {}
    for name, field in fields.items():
        if name in values:
            made[name] = _typed(values[name], hints[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}.{name} is missing; it must be {_name(hints[name])}")
    try:
        return cls(**made)
    except ValueError as error:  # a __post_init__ that checks ranges
        raise UserError(f"{where}: {error}") from None


def near(word: str, known: typing.Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the closest known word, or the list of the known ones."""
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(word), known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known)}" if known else ""


def _typed(value: Any, hint: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a section of key: value lines, not {value!r}")
        return build(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) in (tuple, list):
        if not isinstance(value, list):
            raise UserError(f"{where} must be a list, not {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_typed(v, item, f"{where}[{i}]") for i, v in enumerate(value))
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        if option is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if option is type(None) and value is None:
            return None
        plain = typing.get_origin(option) or option
        if isinstance(plain, type) and isinstance(value, plain) and (plain is bool) == isinstance(value, bool):
            return value
    raise UserError(f"{where} must be {_name(hint)}, not {value!r}")


def _name(hint: Any) -> str:
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return " or ".join(words.get(o, getattr(o, "__name__", str(o))) for o in options)
