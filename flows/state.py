"""What this machine notes for itself, as small JSON files: written whole or not at all, and named when damaged.

state.write(path, {"finished": True})
state.read(path, RunRecord.from_json, "remove it, then: remint doctor")
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from data.core.files import write_whole
from data.core.params import UserError

T = TypeVar("T")


def write(path: Path, values: Any) -> None:
    """Write plain values; after a power cut the file holds these or what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(values, indent=1) + "\n").encode())


def read(path: Path, made: Callable[[Any], T], next_step: str) -> T | None:
    """What `made` makes of a file's values, None where there is no file; UserError names one that is damaged."""
    try:
        return made(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {next_step}") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged ({type(error).__name__}: {why}); {next_step}") from None
