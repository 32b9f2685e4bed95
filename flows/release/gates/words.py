"""How the numbers of a rule are written, in the terminal and on pages."""

from __future__ import annotations


def cell(value: float | str | None) -> str:
    """A number to four digits, a count in full, a word as it is."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def interval(difference: float | None, low: float | None, high: float | None) -> str:
    """A difference with its interval: "+0.12 [+0.05, +0.19]"."""
    if difference is None:
        return "-"
    between = "" if low is None or high is None else f" [{low:+.3g}, {high:+.3g}]"
    return f"{difference:+.3g}{between}"


def look(family: str, run: str) -> str:
    """The command that shows a candidate beside production."""
    return f"remint diff {family} production {run} --html diff.html"


def approve(model: str, version: int) -> str:
    """The command that lets a version pass which waits for it."""
    return f'remint approve {model} v{version} --why "..."'
