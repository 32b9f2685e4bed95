"""One disagreement between two places that should say the same, and what would end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What is wrong somewhere: `place` says this of `subject`, and should say that."""

    place: str  # "MLflow", "git", "catalogue", "bucket", ...
    subject: str  # "images #3", "tokenizer@production"
    says: str
    should: str
    repair: Callable[[], object] | None = None  # None: a person must decide; `advice` says what
    advice: str = ""

    def __str__(self) -> str:
        advice = f" ({self.advice})" if self.advice else ""
        should = f", should be {self.should}" if self.should else ""
        return f"{self.place}: {self.subject} is {self.says}{should}{advice}"
