"""The flows that `remint deploy` puts onto the server; a worker of the pool `flows` runs them.

Each does what a command does, by the same code, in the clone in which the worker was started, and fails in Prefect
where the command would end with an error. Import it only when it is to run: Prefect reads its settings from the
environment at that moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows import repository
from flows import settings as settings_
from flows.arrivals.thresholds import Thresholds
from flows.release import procedure
from flows.schedules import client, started
from flows.settings import Settings


class Wrong(Exception):
    """The doctor found something that disagrees or is damaged; the message says what."""


class NotCollected(Exception):
    """Some garbage could not be removed; the message says which."""


@flow(name="retraining", persist_result=False)
def retraining(recipe: str | None = None) -> State:
    """`remint retrain [--recipe NAME]`: bring every stage up to date, evaluate, register, judge, release."""
    return Completed(message=started.words(started.retrain(_settings(), "schedule", _say(), recipe)))


@flow(name="data-watch", persist_result=False)
def data_watch(
    at_least: int = Thresholds.at_least,
    shift: float = Thresholds.shift,
    confusion: float = Thresholds.confusion,
) -> State:
    """`remint watch`: take in new photographs; retrain when they are many or differ."""
    from flows.arrivals import watch

    settings, say = _settings(), _say()
    seen = watch.look(settings, Thresholds(at_least, shift, confusion))
    for line in watch.lines(seen):
        say(line)
    if seen.decision is None:
        return Completed(message="nothing to start")
    return Completed(message=started.words(started.follow(settings, seen, say)))


@flow(name="reproduction", persist_result=False)
def reproduction(source: Literal["scratch", "inputs"] = "scratch") -> State:
    """`remint doctor --deep`, then `remint reproduce --all`: every byte in production read, every model made again."""
    from flows.doctor import checks
    from flows.release import stores
    from flows.reproduce.every import reproduce_production

    settings, say = _settings(), _say()
    procedure.resume_killed_here(settings, say)
    with stores.opened(settings) as places:
        wrong = [str(result) for result in checks.examine(places, deep=True)]
    for line in wrong:
        say(line)
    state = reproduce_production(str(settings.root), source, return_state=True)
    if wrong:
        raise Wrong(f"{len(wrong)} findings, the first: {wrong[0]}; remint doctor --deep")
    return state


@flow(name="collection", persist_result=False)
def collection(older_than: float = 168.0) -> State:
    """`remint gc --apply --older-than HOURS`: remove what no tag, release or run-cache entry reaches."""
    from flows.garbage import collect

    say = _say()
    done = collect.apply(_settings(), older_than * 3600, lambda item: say(f"removed {item.kind} {item.what}"))
    for kind, why in done.left_alone.items():
        say(f"left alone: every {kind}: {why}")
    if done.failed:
        raise NotCollected("; ".join(f"{what}: {why}" for what, why in done.failed.items()))
    return Completed(message=f"{len(done.found)} removed, {done.bytes} bytes freed")


def _settings() -> Settings:
    """The settings of the worker's clone, with the server of this very flow."""
    if "PREFECT_API_URL" in os.environ:
        os.environ["REMINT_PREFECT_API"] = os.environ["PREFECT_API_URL"]
    settings = settings_.load(repository.find(Path(os.environ.get("REMINT_CLONE", "."))).main)
    client.check(settings)
    return settings


def _say() -> Callable[[str], None]:
    logger = get_run_logger()
    return lambda line: logger.info("%s", line)
