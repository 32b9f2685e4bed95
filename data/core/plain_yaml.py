"""YAML as all its readers understand it: plain names, decimal numbers, texts, lists and sections.

DVC reads YAML 1.2, PyYAML 1.1: of 1e-05 one makes a number and the other a text, of 010 one makes 10 and the other 8.
Here a value is what DVC makes of it, or it is refused by name; so are anchors, tags, names given twice, and files that
are larger or deeper than any of ours, which DVC would take without a word, or for ever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

LARGEST = 8 << 20  # bytes
DEEPEST = 20  # sections and lists in each other
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # its parser alone: events, not values
WORDS = {"true": True, "false": False, "null": None}
WORDS |= {spelt: value for word, value in WORDS.items() for spelt in (word.capitalize(), word.upper())}
WORDS |= {"": None, "~": None}
WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*|[1-9][0-9]{0,2}(_[0-9]{3})+)")
NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?([eE][-+]?[0-9]+)?|\.[0-9]+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)")
ODD = re.compile(  # numbers and dates to some readers, other ones or texts to others
    r"[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|\.[0-9_]+([eE][-+][0-9]+)?)"
    r"|[-+][0-9_]+"
    r"|[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt]|[ \t]+)[0-9].*"
)
DIGITS = 40  # of a whole number


class Refused(ValueError):
    """What is wrong with a text, its line first: "3: ..."."""


def loads(text: str | bytes) -> Any:
    """The value in a YAML text; Refused where readers would differ, or none could read it."""
    return _loads(text, None)


def recorded(text: str | bytes) -> Any:
    """The value in a file that DVC wrote, which names with an alias what occurs twice."""
    return _loads(text, {})


def _loads(text: str | bytes, known: dict[str, Any] | None) -> Any:
    if isinstance(text, bytes):
        text = _decoded(text)
    if text.startswith("\ufeff"):
        raise Refused("1: starts with a byte order mark; save it as UTF-8 without one")
    events = yaml.parse(text, Loader=LOADER)
    try:
        return _document(events, known)
    except yaml.MarkedYAMLError as error:
        mark, why = error.problem_mark or error.context_mark, error.problem or error.context or "is not YAML"
        line = mark.line if mark else 0
        tab = "; indent with spaces, not tabs" if "\t" in "".join(text.splitlines()[line : line + 1]) else ""
        raise Refused(f"{line + 1}: not valid YAML: {why}{tab}") from None
    except yaml.YAMLError as error:  # a character that no text may hold
        raise Refused(f"1: not valid YAML: {' '.join(str(error).split())}") from None


def _decoded(data: bytes) -> str:
    if len(data) > LARGEST:
        raise Refused(f"1: has {len(data):,} bytes, more than the {LARGEST:,} that are read")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Refused(f"{line}: byte {data[error.start]:#04x} is not UTF-8; save the file as UTF-8") from None


def _document(events: Iterator[Any], known: dict[str, Any] | None) -> Any:
    next(events)  # the stream
    start = next(events)
    if isinstance(start, yaml.StreamEndEvent):
        return None
    if start.version or start.tags:
        raise _refused(start, "a line that begins with % changes how YAML is read; leave it out")
    value = _value(next(events), events, 0, known)
    next(events)
    if not isinstance(end := next(events), yaml.StreamEndEvent):
        raise _refused(end, "a second document begins here; one file holds one")
    return value


def _value(event: Any, events: Iterator[Any], depth: int, known: dict[str, Any] | None) -> Any:
    """known: values by anchor; None where anchors are refused."""
    if event.anchor is None:
        return _plain(event, events, depth, known)
    if known is None:
        raise _refused(event, f"anchors and aliases (&{event.anchor}, *{event.anchor}) are not read; write values out")
    if not isinstance(event, yaml.AliasEvent):
        known[event.anchor] = _plain(event, events, depth, known)
    if event.anchor not in known:
        raise _refused(event, f"*{event.anchor} stands for nothing")
    return known[event.anchor]


def _plain(event: Any, events: Iterator[Any], depth: int, known: dict[str, Any] | None) -> Any:
    if event.tag is not None:
        raise _refused(event, f"tags ({event.tag}) are not read; leave it out")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event) if event.implicit[0] else event.value
    if depth == DEEPEST:
        raise _refused(event, f"sections and lists lie deeper in each other than {DEEPEST}")
    if isinstance(event, yaml.SequenceStartEvent):
        items = []
        while not isinstance(inner := next(events), yaml.SequenceEndEvent):
            items.append(_value(inner, events, depth + 1, known))
        return items
    section: dict[str, Any] = {}
    while not isinstance(name := next(events), yaml.MappingEndEvent):
        key = _value(name, events, depth + 1, known)
        if not isinstance(key, str):
            raise _refused(name, f"{_shown(name, key)} stands where a name must; put it in quotes if it is one")
        if key in section:
            raise _refused(name, f"'{key}' is there twice in one section; keep one of them")
        section[key] = _value(next(events), events, depth + 1, known)
    return section


def _scalar(event: Any) -> Any:
    """What stands without quotes."""
    text = event.value
    if text in WORDS:
        return WORDS[text]
    if WHOLE.fullmatch(text):
        if len(text) > DIGITS:
            raise _refused(event, f"a whole number of {len(text)} digits; no parameter takes more than {DIGITS}")
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if ODD.fullmatch(text) or text in ("=", "<<"):
        raise _refused(
            event,
            f"{text[:DIGITS]} is not the same to all readers of YAML; write a number in plain decimal digits, "
            "a text in quotes",
        )
    return text


def _shown(event: Any, key: Any) -> str:
    return event.value if isinstance(event, yaml.ScalarEvent) else type(key).__name__


def _refused(event: Any, why: str) -> Refused:
    return Refused(f"{event.start_mark.line + 1}: {why}")
