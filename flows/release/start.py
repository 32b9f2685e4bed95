"""What every command that changes something begins with: ending what was killed."""

from __future__ import annotations

from collections.abc import Callable

from flows.release import marks
from flows.settings import Settings


def clear(settings: Settings, say: Callable[[str], None]) -> None:
    """End the promotions of this machine that were killed; looks at one folder, which costs a run nothing."""
    if marks.left_behind(settings):
        check(settings, say)


def check(settings: Settings, say: Callable[[str], None]) -> None:
    """Open catalogue and bucket, and end every promotion that was killed.

    UserError if one of them does not answer, or the log of releases is not as the catalogue has it.
    """
    from flows.release import anchors, pointers, procedure, stores

    with stores.opened(settings) as places:
        for identifier in procedure.abandoned(places):
            if said := procedure.settle(places, identifier):
                say(f"A promotion had been interrupted: {said}.")
        for family in anchors.families(places.bucket, places.catalogue):
            anchors.check(places.bucket, places.catalogue, family, pointers.log(places.bucket, family), ends=False)
