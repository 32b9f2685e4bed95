"""The collection: all garbage is found, and exactly what was found removed, while no run can begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from data.core.params import UserError
from flows.garbage import attempts, objects, releases, scratch, tracked, unfinished
from flows.garbage.place import Garbage, InTheWay, Kind, Place, survey
from flows.pipeline import workspace
from flows.settings import Settings

# a killed run's worktree goes before what only it stood on
KINDS = {
    kind.name: kind
    for kind in (
        *scratch.KINDS,
        unfinished.CHECKPOINTS,
        Kind(attempts.KIND, attempts.find, attempts.delete, attempts.guard),
        tracked.KIND,
        releases.KIND,
        unfinished.UPLOADS,
        objects.KIND,
    )
}


@dataclass
class Collection:
    """What was found, what could not be looked at, and what could not be removed."""

    found: list[Garbage] = field(default_factory=list)
    left_alone: dict[str, str] = field(default_factory=dict)  # kind -> what is in the way
    failed: dict[str, str] = field(default_factory=dict)  # what -> why it is still there

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.found)


def plan(settings: Settings, grace: float) -> Collection:
    """What `apply` would remove now."""
    with _surveyed(settings, grace) as (_, collection):
        return collection


def apply(settings: Settings, grace: float, removed: Callable[[Garbage], None]) -> Collection:
    """Remove what is garbage now; `removed` is told of each thing when it is gone.

    The locks under which it was found are held until it is gone. Each removal stands for itself, so that a kill in
    between leaves a smaller collection to the next.
    """
    with _surveyed(settings, grace) as (place, collection):
        for item in collection.found:
            try:
                KINDS[item.kind].delete(place, item)
            except (InTheWay, UserError, OSError) as error:
                collection.failed[item.what] = str(error)
            else:
                removed(item)
        return collection


@contextmanager
def _surveyed(settings: Settings, grace: float) -> Iterator[tuple[Place, Collection]]:
    """All garbage, with everything locked that could make it wanted again."""
    collection = Collection()
    with ExitStack() as locks:
        locks.enter_context(workspace.exclusive(settings))
        place = survey(settings, workspace.living(settings), grace)
        for name, kind in KINDS.items():
            try:
                locks.enter_context(kind.guard(place))
                collection.found += list(kind.find(place))
            except (InTheWay, UserError) as error:
                collection.left_alone[name] = str(error)
        yield place, collection
