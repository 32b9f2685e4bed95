"""How far a stage is, on Prefect's pages: a progress artifact of its task, beside the log that keeps whole lines.

with Bar("tokenizer") as bar:
    bar.says("step 120/2000 (6 %)  loss 0.31  140 images/s  13 s left")
"""

import contextvars
import re
import threading
from types import TracebackType
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.retrain import task_artifacts

SECONDS = 5.0  # between two drawings; what ends sooner needs no bar
JOIN_SECONDS = 2.0
SHARE = re.compile(r"\b(\d{1,3}) ?%")


class Bar:
    """Draws from a thread of its own: a server that does not answer must hold up no stage."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._said = self._drawn = ""
        self._artifact: UUID | None = None
        self._ended = threading.Event()
        context = contextvars.copy_context()  # knows the task that the artifact belongs to
        self._thread = threading.Thread(target=context.run, args=(self._run,), name=f"bar of {stage}", daemon=True)

    def __enter__(self) -> "Bar":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(JOIN_SECONDS)

    def says(self, text: str) -> None:
        """The stage's latest words; those without a percentage are not drawn."""
        if SHARE.search(text):
            self._said = text

    def _run(self) -> None:
        while not self._ended.wait(SECONDS):
            self._draw()
        if self._artifact is not None:
            self._draw()

    def _draw(self) -> None:
        said = self._said
        if said == self._drawn:
            return
        share = min(100.0, float(SHARE.findall(said)[0]))
        try:
            if self._artifact is None:
                name = task_artifacts.key(f"{self.stage}-progress")
                self._artifact = cast(UUID, create_progress_artifact(share, key=name, description=said))
            else:
                update_progress_artifact(self._artifact, share, description=said)
        except Exception:  # the server's being away shows elsewhere; the next drawing tries again
            return
        self._drawn = said
