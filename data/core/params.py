"""Parameters: one section of `params.yaml` becomes one frozen dataclass; anything unexpected is an error.

    steps: Annotated[int, Range(1, 10_000_000)]
    precision: Literal["auto", "32-true", "bf16-mixed"]

What a field takes is declared with it; what several of them take together, the dataclass checks in `__post_init__`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from data.core import plain_yaml

T = TypeVar("T")
LARGEST = 2**63 - 1  # of a whole number: what PyArrow, torch and SQL have room for
SHARED = ("seed", "threads", "portable", "accelerate")  # top-level values: a section may have fields of these names


class UserError(Exception):
    """A mistake of the user's: entry points print it as one line and exit with code 2, without a traceback."""


@dataclass(frozen=True)
class Range:
    """What a number may be: from `least` to `most`, both included, or strictly between `above` and `below`."""

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    why: str = ""  # where the limit is not plain

    def __contains__(self, value: float) -> bool:
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {"at least": self.least, "above": self.above, "at most": self.most, "below": self.below}
        return " and ".join(f"{words} {limit:,}" for words, limit in limits.items() if limit is not None) + self.why


@dataclass(frozen=True)
class Length:
    """How many items a list has, both included."""

    least: int
    most: int

    def __contains__(self, value: typing.Sized) -> bool:
        return self.least <= len(value) <= self.most

    def __str__(self) -> str:
        return f"a list of {self.least if self.least == self.most else f'{self.least} to {self.most}'} items"


@dataclass(frozen=True)
class Filled:
    """What a text may be: not empty."""

    def __contains__(self, value: str) -> bool:
        return bool(value.strip())

    def __str__(self) -> str:
        return "a text that is not empty"


Seed = typing.Annotated[int, Range(0)]
Share = typing.Annotated[float, Range(0, 1)]
Count = typing.Annotated[int, Range(1, 10**9)]


def load(cls: type[T], section: str, path: str | Path = "params.yaml") -> T:
    """Read `section` ("generator.maskgit" walks down) of the YAML file into the frozen dataclass `cls`.

    Raises UserError that names file, section.key and value when a key is unknown or missing, of the wrong type or out
    of its range. An int is accepted where a float is wanted; nothing else is converted.
    """
    return pick(cls, section, read(path), path)


def pick(cls: type[T], section: str, whole: dict[str, Any], path: str | Path) -> T:
    """Like `load`, from the file's values."""
    values: Any = whole
    for part in section.split("."):
        if not isinstance(values, dict) or part not in values:
            raise UserError(f"{path}: no section '{section}'{near(part, values or {})}")
        values = values[part]
    if not isinstance(values, dict):
        raise UserError(f"{path}: '{section}' must be a section of key: value lines, not {values!r}")
    return build(cls, values, where=f"{path}: {section}", shared={k: whole[k] for k in SHARED if k in whole})


def read(path: str | Path) -> dict[str, Any]:
    """The YAML mapping in `path`; UserError when it is missing, is not one, or means different things to readers."""
    try:
        values = plain_yaml.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run from the repository's root") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; correct its permissions") from None
    except plain_yaml.Refused as error:
        raise UserError(f"{path}:{error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold key: value lines, not {type(values).__name__}")
    return values


def build(cls: type[T], values: dict[str, Any], where: str, shared: dict[str, Any] | None = None) -> T:
    """Make the dataclass from plain values, checking names and types; nested dataclasses are built too."""
    made = arguments(cls, values, where, shared)
    try:
        return cls(**made)
    except (ValueError, UserError) as error:  # a __post_init__ that checks fields together
        raise UserError(f"{where.rstrip(':')}: {error}") from None


def arguments(cls: type, values: dict[str, Any], where: str, shared: dict[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of a class, a dataclass or any other with type hints, from plain values; UserError as of `build`.

    where: of the values, "FILE: SECTION", or "FILE:" of those that are the whole file.
    """
    fields = _fields(cls)
    for key in values:
        if key not in fields:
            raise UserError(f"{_under(where, key)} is not a parameter{near(key, fields)}")
    own, values = values, {**{k: v for k, v in (shared or {}).items() if k in fields}, **values}
    made = {}
    for name, (hint, required) in fields.items():
        if name in values:
            place = _under(where, name) if name in own else f"{where.rpartition(': ')[0]}: {name}"
            made[name] = _typed(values[name], hint, place)
        elif required:
            raise UserError(f"{_under(where, name)} is missing; it must be {_name(hint)}")
    return made


def _under(where: str, name: str) -> str:
    return f"{where} {name}" if where.endswith(":") else f"{where}.{name}"


def near(word: str, known: typing.Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the closest known word, or the list of the known ones."""
    known = [str(k) for k in known]
    close = difflib.get_close_matches(str(word), known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known)}" if known else ""


@functools.cache
def _fields(cls: Any) -> dict[str, tuple[Any, bool]]:
    """By name type hint, and whether it must be given."""
    hints = typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__, include_extras=True)
    known = inspect.signature(cls).parameters
    return {name: (hints[name], one.default is inspect.Parameter.empty) for name, one in known.items()}


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value`, checked against a type hint; Annotated with a Range it must lie in that, too."""
    if typing.get_origin(hint) is typing.Annotated:
        plain, *limits = typing.get_args(hint)
        made = _typed(value, plain, where)
        for limit in limits:
            if made is not None and made not in limit:
                raise UserError(f"{where} must be {limit}, not {_shown(value)}")
        return made
    if typing.get_origin(hint) is typing.Literal:
        known = typing.get_args(hint)
        if value not in known:
            raise UserError(f"{where} must be one of {', '.join(known)}, not {_shown(value)}")
        return value
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise UserError(f"{where} must be a section of key: value lines, not {_shown(value)}")
        return build(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) in (tuple, list, Sequence):
        if not isinstance(value, list):
            raise UserError(f"{where} must be a list, not {_shown(value)}")
        item = typing.get_args(hint)[0]
        return tuple(_typed(v, item, f"{where}[{i}]") for i, v in enumerate(value))
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    for option in options:
        if option in (float, int) and isinstance(value, int | float) and not isinstance(value, bool):
            if isinstance(value, int) and abs(value) > LARGEST:
                raise UserError(f"{where} must be below 2^63, not {_shown(value)}")
            if not math.isfinite(value):
                raise UserError(f"{where} must be a finite number, not {value}")
            if option is float:
                return float(value)
        if option is type(None) and value is None:
            return None
        plain = typing.get_origin(option) or option
        if isinstance(plain, type) and isinstance(value, plain) and (plain is bool) == isinstance(value, bool):
            return value
    raise UserError(f"{where} must be {_name(hint)}, not {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]} ..."


def _name(hint: Any) -> str:
    """What a value must be, in words."""
    if typing.get_origin(hint) is typing.Annotated:
        return _name(typing.get_args(hint)[0])
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(typing.get_args(hint))}"
    if typing.get_origin(hint) in (tuple, list, Sequence):
        return "a list"
    if dataclasses.is_dataclass(hint) or hint is dict or typing.get_origin(hint) is dict:
        return "a section"
    words = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return " or ".join(words.get(o, getattr(o, "__name__", str(o))) for o in options)
