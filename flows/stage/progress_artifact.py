"""How far a stage is, on Prefect's pages: a progress artifact of its task or flow run, beside the log of whole lines.

with Bar("tokenizer") as bar:
    bar.says("step 120/2000 (6 %)  loss 0.31  140 images/s  13 s left")
"""

import contextvars
import re
import threading
from types import TracebackType
from typing import Self, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

SECONDS = 5.0  # between two drawings; what ends sooner needs no bar
ALIVE_SECONDS = 10.0  # the same on workers, of which there may be hundreds
JOIN_SECONDS = 2.0
SHARE = re.compile(r"\b(\d{1,3}) ?%")


def key(name: str) -> str:
    """A name as the key of an artifact: Prefect allows nothing but lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


class Bar:
    """Draws from a thread of its own: a server that does not answer must hold up no stage.

    alive: draw words without a percentage too, and what is drawn already once more: who waits takes it for a sign of
    life.
    """

    def __init__(self, stage: str, alive: bool = False) -> None:
        self.stage, self.alive = stage, alive
        self._said = self._drawn = ""
        self._artifact: UUID | None = None
        self._ended = threading.Event()
        context = contextvars.copy_context()  # knows the task that the artifact belongs to
        self._thread = threading.Thread(target=context.run, args=(self._run,), name=f"bar of {stage}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(JOIN_SECONDS)

    def says(self, text: str) -> None:
        """The stage's latest words; those without a percentage are not drawn."""
        if self.alive or SHARE.search(text):
            self._said = text

    def _run(self) -> None:
        while not self._ended.wait(ALIVE_SECONDS if self.alive else SECONDS):
            self._draw()
        if self._artifact is not None:
            self._draw()

    def _draw(self) -> None:
        said, shares = self._said, SHARE.findall(self._said)
        if said == self._drawn and not self.alive:
            return
        share = min(100.0, float(shares[0])) if shares else 0.0
        try:
            if self._artifact is None:
                made = create_progress_artifact(share, key=key(f"{self.stage}-progress"), description=said)
                self._artifact = cast(UUID, made)
            else:
                update_progress_artifact(self._artifact, share, description=said)
        except Exception:  # the server's being away shows elsewhere; the next drawing tries again
            return
        self._drawn = said
