"""What the console shows while stages work: live lines in a terminal, plain ones elsewhere.

Everything goes to standard error; standard output stays free for the plan, the table and `--json`.
"""

import sys
import threading
import time
from typing import Protocol

from flows.console import say
from flows.pipeline.run import StageResult
from flows.show.table import WORDS

BEAT_SECONDS = 60.0  # without a terminal: how often a stage that works says where it is


class Progress(Protocol):
    """Told what happens to stages, from any thread."""

    def __enter__(self) -> "Progress": ...
    def __exit__(self, *error: object) -> None: ...
    def started(self, stage: str) -> None: ...
    def says(self, stage: str, text: str) -> None: ...
    def ended(self, result: StageResult) -> None: ...
    def note(self, text: str) -> None: ...


def console() -> Progress:
    """The progress display that fits where standard error goes."""
    return Live() if sys.stderr.isatty() else Plain()


class Plain:
    """One line when a stage starts, one when it ends, and one a minute between."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._beat: dict[str, float] = {}

    def __enter__(self) -> "Plain":
        return self

    def __exit__(self, *error: object) -> None: ...

    def started(self, stage: str) -> None:
        self._beat[stage] = time.monotonic()
        self._print(f"{stage}: started")

    def says(self, stage: str, text: str) -> None:
        now = time.monotonic()
        if now - self._beat.get(stage, now) >= BEAT_SECONDS:
            self._beat[stage] = now
            self._print(f"{stage}: {text[:160]}")

    def ended(self, result: StageResult) -> None:
        self._print(_ended(result))

    def note(self, text: str) -> None:
        self._print(text)

    def _print(self, text: str) -> None:
        with self._lock:
            say(f"{time.strftime('%H:%M:%S')} {text}")


class Live:
    """A line per working stage with its time and latest words; finished stages scroll up."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bars
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        said = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}", markup=False, style="dim", table_column=said),
            console=Console(stderr=True),
            expand=True,
            transient=True,
        )
        self._rows: dict[str, int] = {}

    def __enter__(self) -> "Live":
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def started(self, stage: str) -> None:
        self._rows[stage] = int(self._bars.add_task(stage, total=None, said=""))

    def says(self, stage: str, text: str) -> None:
        if stage in self._rows:
            self._bars.update(self._rows[stage], said=text)  # type: ignore[arg-type]

    def ended(self, result: StageResult) -> None:
        row = self._rows.pop(result.name, None)
        if row is not None:
            self._bars.remove_task(row)  # type: ignore[arg-type]
        self.note(_ended(result))

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, highlight=False)


def _ended(result: StageResult) -> str:
    took = f" in {result.seconds:.1f} s" if result.seconds else ""
    return f"{result.name}: {WORDS[result.action]}{took}"
