"""Parameters of the guard between data and training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from data.core.params import Filled, Range, Share


@dataclass(frozen=True)
class Validate:
    """Section `validate` of params.yaml."""

    # how far a class may be from an even share: 0.25 = a quarter more or less
    max_class_imbalance: Annotated[float, Range(0, 1000)]
    min_valid_share: Share  # share of a scene's pixels that must have a depth
    # bits of 64 up to which two difference hashes mean one picture
    duplicate_distance: Annotated[int, Range(0, 63)]
    max_duplicate_share: Share  # share of held-out pictures that may have a twin in training
    max_drift: Annotated[float, Range(0, 1000)]  # population stability index against the previous version
    previous: Annotated[str | None, Filled()] = None  # statistics.json of the previous version
