"""The releases of a family in their order, read from the bucket's verified pointer log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from flows.release import pointers
from flows.release.pointers import Pointer, changes
from flows.show.columns import columns


def text(log: Sequence[Pointer]) -> str:
    """A line for each release, the newest first: what it changed, from which run, by whom and why."""
    lines = [("release", "at", "by", "run", "models", "")]
    for before, pointer in zip([None, *log], log, strict=False):
        note = f"restores #{pointer.restores}" if pointer.restores else ""
        lines.insert(
            1,
            (
                f"#{pointer.number}",
                pointer.at.replace("T", " ").partition("+")[0],
                pointer.who.partition(" <")[0],
                pointer.run,
                changes(before, pointer),
                "; ".join(part for part in (note, pointer.why) if part),
            ),
        )
    return columns(lines)


def to_json(log: Sequence[Pointer]) -> list[dict[str, Any]]:
    """Every release with all that its pointer holds, the oldest first."""
    return [asdict(pointer) | {"digest": pointers.digest(pointer)} for pointer in log]
