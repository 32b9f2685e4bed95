"""Text in aligned columns that keep to the width of the terminal: cells are wrapped, and where there is no room for
columns at all, each line becomes a block of its own.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Collection, Sequence
from itertools import zip_longest

GAP = 2
NARROW = 12  # no column is made narrower; a number is no wider


def terminal() -> int:
    """The width to keep to: of the terminal, or COLUMNS; 80 for a file or a pipe."""
    return max(20, shutil.get_terminal_size((80, 24)).columns)


def columns(
    lines: Sequence[Sequence[str]],
    right: Collection[int] = (),
    indent: int = 0,
    headed: bool = True,
    notes: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """Lines of cells as aligned columns; `right` names those that align to the right.

    headed: the first line names the columns. notes: a text below each line but the headings, "" for none. width:
    instead of the terminal's.
    """
    room = (terminal() if width is None else width) - indent
    widths = _fitted([max(len(line[i]) for line in lines) for i in range(len(lines[0]))], room)
    if widths is None:
        headings = lines[0] if headed else [""] * len(lines[0])
        blocks = [_block(headings, line, room) for line in lines[headed:]]
    else:
        blocks = [_row(line, widths, right) for line in lines]
    below = ["", *notes] if headed and widths else notes
    text = "\n".join(
        "\n".join([block, *(textwrap.wrap(note, max(room - 4, 16), initial_indent="    ", subsequent_indent="    "))])
        for block, note in zip_longest(blocks, below, fillvalue="")
    )
    return textwrap.indent(text, " " * indent)


def _fitted(widths: list[int], room: int) -> list[int] | None:
    """The widths cut down to what fits, the widest first; None where a column would become too narrow."""
    cap = max(widths)
    while sum(min(width, cap) for width in widths) > room - GAP * (len(widths) - 1):
        cap -= 1
        if cap < NARROW:
            return None
    return [min(width, cap) for width in widths]


def _row(line: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    """A line, as tall as its tallest cell."""
    cells = [_wrapped(cell, width) for cell, width in zip(line, widths, strict=True)]
    return "\n".join(
        (" " * GAP)
        .join(
            part.rjust(width) if i in right else part.ljust(width)
            for i, (part, width) in enumerate(zip(parts, widths, strict=True))
        )
        .rstrip()
        for parts in zip_longest(*cells, fillvalue="")
    )


def _block(headings: Sequence[str], line: Sequence[str], room: int) -> str:
    """A line where there is no room for columns: its first cell, and below it what the others say."""
    there = [(heading, cell) for heading, cell in zip(headings[1:], line[1:], strict=True) if cell not in ("", "-")]
    rest = "; ".join(f"{heading} {cell}".strip() for heading, cell in there)
    first = textwrap.wrap(line[0].strip(), room, subsequent_indent="  ")
    return "\n".join([*first, *textwrap.wrap(rest, room, initial_indent="  ", subsequent_indent="  ")])


def paragraph(text: str) -> str:
    """Prose in lines that keep to the terminal's width."""
    return textwrap.fill(text, terminal(), subsequent_indent="  ")


def _wrapped(cell: str, width: int) -> list[str]:
    """A cell's lines; what stands before its first word stays before each."""
    if len(cell) <= width:
        return [cell]
    margin = " " * (len(cell) - len(cell.lstrip()))
    return textwrap.wrap(cell.lstrip(), width, initial_indent=margin, subsequent_indent=margin) or [""]
