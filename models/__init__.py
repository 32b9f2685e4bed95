"""Layer 2: one folder per model family; losses, metrics and layers beside them. Code only, no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def load(reference: str | Path) -> Any:
    """Return the model that "tokenizer@production", "tokenizer@v3" or a model folder stands for, ready to use."""
    from models import registry  # where used: every stage imports this package

    return registry.load(reference)
