"""A retraining that nobody asked for by hand: started, and written down with what started it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flows.release import notify, origin
from flows.release.notify import Notice
from flows.retrain import job, launch
from flows.settings import Settings
from flows.workers import claim

if TYPE_CHECKING:
    from flows.arrivals.watch import Seen
    from flows.release.outcome import RunOutcome


class NotRetrained(Exception):
    """The run that was started failed; the message says where."""


def retrain(
    settings: Settings, trigger: str, say: Callable[[str], None], recipe: str | None = None
) -> RunOutcome | None:
    """Do what `remint retrain` does, for the newest commit of REMINT_BRANCH where that is set.

    None if nothing was to do, or another process does the same.
    """
    try:
        with job.prepared(settings.root, recipe, trigger=trigger, commit=origin.newest(settings)) as ready:
            outcome = launch.bring_up_to_date(ready, say)
    except claim.UnderWay as error:
        say(str(error))
        return None
    if outcome is not None and not outcome.whole:
        why = "; ".join(map(str, outcome.failures.values())) or "its budget ended"
        raise NotRetrained(f"run {outcome.run.id}: {why}")
    return outcome


def follow(settings: Settings, seen: Seen, say: Callable[[str], None]) -> RunOutcome | None:
    """Start what a look at the watched place decided; the journal has it, however it ends.

    Whoever is killed in between has written nothing, so that the next look starts the same again; stages that had
    finished do not run twice.
    """
    from flows.arrivals import watch

    decision = seen.decision
    assert decision is not None
    if decision.trigger == "drift":
        details = {"drift": seen.drift, "against": seen.against, "photographs": seen.waiting}
        notify.tell(settings, [Notice("drift", watch.PHOTOGRAPHS, decision.why, trigger="drift", details=details)], say)
    try:
        outcome = retrain(settings, decision.trigger, say)
    except Exception:
        watch.record_trigger(settings, seen, None, "failed")
        raise
    watch.record_trigger(settings, seen, outcome.run.id if outcome else None, "done")
    return outcome


def words(outcome: RunOutcome | None) -> str:
    """What came of it, in one line."""
    if outcome is None:
        return "nothing to do: every stage is up to date, or another run brings them there"
    return "; ".join([outcome.run.tag, *map(str, outcome.release.outcomes)])
