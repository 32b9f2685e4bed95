"""A recorded run judged again: against what is in production now, by the policy that stands now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from flows import repository
from flows.catalogue import journal
from flows.pipeline.store import Store
from flows.release import of_run, projections, recorded
from flows.release.gates import policy
from flows.release.of_run import Release
from flows.release.promote import Outcome, check_family, promote
from flows.release.stores import Stores
from flows.runs.values import RunInfo

JUDGEMENT = "judgement"  # kind of a journal entry


@contextmanager
def judged(stores: Stores, wanted: str | None, family: str | None = None) -> Iterator[tuple[RunInfo, Release]]:
    """A run with its outputs in place, registered and judged; of one family, or of all that it has.

    The policy is that of the commit which is checked out: of the file there that the run's own parameters name. The
    decisions are stored, nothing is released.
    """
    found = recorded.find(stores, wanted)
    with recorded.opened(stores, found, family) as ran:
        policy.lay_out(stores.settings.root, _head(stores), ran.workspace)
        store = Store(ran.workspace)
        try:
            stages = store.stages
        finally:
            store.close()
        made = of_run.register(stores, ran, stages, recorded.results(stores, ran, stages), family)
        yield ran, of_run.judge(stores, ran, made)


def note(stores: Stores, ran: RunInfo, made: Release, who: str) -> None:
    """Write into the journal by which policy a run was judged, and what came of it."""
    body = {
        "who": who,
        "policy": policy.policy_file(ran.workspace).as_posix(),
        "commit": _head(stores),
        "verdicts": {f"{one.model}@v{one.version}": one.verdict for one in made.decisions},
    }
    with stores.catalogue.begin() as session:
        journal.append(session, JUDGEMENT, ran.id, body)


def promote_run(stores: Stores, family: str, wanted: str | None, who: str, why: str) -> Outcome:
    """Promote a family of a run that was recorded before, the newest one without a name, by the present policy."""

    check_family(stores.settings, stores.bucket, family)
    with judged(stores, wanted, family) as (ran, made):
        outcome = promote(stores, ran, family, made.registered, made.decisions, made.bases[family], who, why)
    if outcome.state != "standing":
        return outcome
    return replace(outcome, left=tuple(projections.follow(stores, family)))  # it may just have been registered again


def _head(stores: Stores) -> str:
    return repository.git(stores.settings.root, "rev-parse", "HEAD")
