"""What a run is given of the photographs that arrived: their list, in its worktree and so in its commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data.params import UserError
from flows import parameters
from flows.settings import Settings

LIST = Path("data/incoming.arrivals")
PER_PHOTO = 16  # tiles of each photograph, where params.yaml names no number


def put(root: Path, settings: Settings) -> list[str]:
    """Write the list into a run's worktree; returns the assignments that make the run use it, [] if nothing arrived.

    UserError if the settings name another source as well.
    """
    if not settings.incoming:
        return []
    from flows.arrivals import batches

    if settings.photos is not None:
        raise UserError(
            "REMINT_PHOTOS and REMINT_INCOMING both say where photographs come from; unset one of them "
            "(what REMINT_PHOTOS names can be put into params.yaml, photos.source: what arrives is added to it)"
        )
    log = batches.open(settings)
    every = log.read()
    if not any(batch.arrived for batch in every):
        return []
    (root / LIST).write_text(log.text(every), encoding="utf-8")
    known: Mapping[str, Any] = parameters.read(root).get("photos", {})
    per_photo = [f"photos.per_photo={PER_PHOTO}"] if known.get("per_photo") is None else []
    return [f"photos.source={LIST.as_posix()}", *per_photo]
