"""Notices of what came of a run: to a webhook, and as Prefect's events, on which automations can be built.

    notify.tell(settings, notify.of_run(outcome))

A notice is a by-product: whatever becomes of it, the run goes on, and one line says what could not be delivered. The
address of a webhook often is a secret of its own, so that only its server is ever shown.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import random
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from flows.console import say
from flows.release.gates import decision
from flows.release.gates.decision import Decision
from flows.settings import Settings

if TYPE_CHECKING:
    from flows.catalogue.alarms import Alarm
    from flows.pipeline.run import RunInfo
    from flows.release.outcome import Release, RunOutcome
    from flows.release.pointers import Pointer
    from flows.release.promote import FamilyOutcome

TRIES, WAIT_SECONDS, TIMEOUT_SECONDS = 4, 0.5, 5.0  # waits double: a dead webhook costs a run 25 s at most
Event = Literal["run-failed", "gate-refused", "approval-wanted", "released", "alarm", "drift"]


@dataclass(frozen=True)
class Notice:
    """Something that somebody may want to hear of."""

    event: Event
    subject: str  # what it is about: a run, "tokenizer@v3", "images", a stage
    text: str  # one line for people
    run: str = ""  # id of the run, "" for none
    trigger: str = ""  # what asked for it
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What is posted. `id` is the same however often this is told, so that a receiver can leave out doubles.

        It does not depend on the words: a release that could not be followed everywhere is told when it is made, and
        by whoever completes it.
        """
        about: dict[str, Any] = {"event": f"remint.{self.event}", "subject": self.subject, "run": self.run}
        about["details"] = dict(self.details)
        identity = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:32]
        words = {"text": self.text, "trigger": self.trigger}
        return {"id": identity, "at": datetime.now(UTC).isoformat(timespec="seconds"), **about, **words}


def of_run(outcome: RunOutcome) -> list[Notice]:
    """What is to be told of a run that has ended."""
    run = outcome.run
    if not outcome.whole:
        causes = {name: str(failure) for name, failure in outcome.failures.items()}
        why = "; ".join(causes.values()) or "its budget ended"
        return [_of(run, "run-failed", run.id, f"run {run.id} failed: {why}", stages=causes)]
    return of_release(run, outcome.release)


def of_release(run: RunInfo, made: Release) -> list[Notice]:
    """What is to be told of the models of a run: alarms, refusals, releases."""
    told = [notice for family in made.outcomes for notice in of_family(family, run.trigger)]
    return [*of_alarms(made.alarms, run.id, run.trigger), *_of_decisions(run, made.decisions), *told]


def of_family(outcome: FamilyOutcome, trigger: str) -> list[Notice]:
    """What is to be told of a promotion or a rollback: the release, if there is a new one."""
    if outcome.state != "released" or outcome.release is None:
        return []
    return [of_pointer(outcome.release, str(outcome), trigger)]


def of_pointer(release: Pointer, text: str, trigger: str) -> Notice:
    """What is to be told of a new release."""
    models = {member.model: member.version for member in release.members}
    details = {"family": release.family, "number": release.number, "models": models, "restores": release.restores}
    return Notice("released", release.family, text, release.run, trigger, details)


def of_alarms(alarms: Iterable[Alarm], run: str, trigger: str) -> list[Notice]:
    """What is to be told of stages that gave two outputs for one input."""
    return [
        Notice("alarm", one.stage, str(one), run, trigger, {"input": one.input, "outputs": list(one.outputs)})
        for one in alarms
    ]


@contextmanager
def failure(settings: Settings, run: RunInfo) -> Iterator[None]:
    """Tell of a run that ends with an error which is no stage's."""
    try:
        yield
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        tell(settings, [_of(run, "run-failed", run.id, f"run {run.id} failed: {words}")])
        raise


def tell(settings: Settings, notices: Iterable[Notice], say: Callable[[str], None] = say) -> None:
    """Deliver notices, one after the other; raises nothing."""
    for notice in notices:
        try:
            _emit(notice)
            if settings.webhook is not None:
                _post(settings.webhook, settings.webhook_token, json.dumps(notice.to_json(), default=str).encode())
        except Exception as error:  # its words may hold the address
            name = shown(settings.webhook) if settings.webhook else "Prefect"
            say(f"{notice.event} of {notice.subject} could not be told to {name}: {_reason(error)}")


def shown(webhook: SecretStr) -> str:
    """A webhook as it may be shown: without path, user and password."""
    try:
        parts = urlsplit(webhook.get_secret_value())
        return f"REMINT_WEBHOOK={parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "REMINT_WEBHOOK"


def _of(run: RunInfo, event: Event, subject: str, text: str, **details: Any) -> Notice:
    return Notice(event, subject, text, run.id, run.trigger, details)


def _of_decisions(run: RunInfo, decisions: Iterable[Decision]) -> Iterator[Notice]:
    for one in decisions:
        title = f"{one.model}@v{one.version}"
        if one.verdict == "refused":
            rules = [rule.name for rule in one.failed]
            yield _of(run, "gate-refused", title, f"{title} was refused: {one.reason}", rules=rules)
        elif one.waits_itself:
            approve = decision.approve(one.model, one.version)
            look = decision.look(one.family, run.id) if one.replaces is not None else ""
            text = f"{title} waits for approval: {'; '.join(filter(None, (look, approve)))}"
            yield _of(run, "approval-wanted", title, text, family=one.family, look=look, approve=approve)


def _emit(notice: Notice) -> None:
    """As an event of Prefect, where a run has its server."""
    if "prefect" not in sys.modules or "PREFECT_API_URL" not in os.environ:
        return
    from prefect.events import emit_event
    from prefect.events.worker import EventsWorker

    values = notice.to_json()
    resource = {"prefect.resource.id": f"remint.{notice.event}.{notice.subject}", "prefect.resource.name": notice.text}
    emit_event(event=values["event"], resource=resource, payload=values)
    EventsWorker.drain_all(timeout=TIMEOUT_SECONDS)  # a run's own server ends with the run


def _post(webhook: SecretStr, token: SecretStr | None, body: bytes) -> None:
    """Post JSON; what may pass (no answer, 429, 5xx) is tried again with growing waits."""
    headers = {"Content-Type": "application/json", "User-Agent": "remint"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token.get_secret_value()}"
    address = webhook.get_secret_value()
    if urlsplit(address).scheme not in ("http", "https"):
        raise NotAnAddress("it is no http(s) address")
    request = urllib.request.Request(address, data=body, headers=headers, method="POST")
    opener = urllib.request.build_opener(_NoRedirects)
    for attempt in range(1, TRIES + 1):
        try:
            opener.open(request, timeout=TIMEOUT_SECONDS).close()
            return
        except (OSError, http.client.HTTPException) as error:
            passing = not isinstance(error, urllib.error.HTTPError) or error.code == 429 or error.code >= 500
            if attempt == TRIES or not passing:
                raise
        time.sleep(WAIT_SECONDS * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))


class NotAnAddress(ValueError):
    """A webhook that cannot be posted to."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The secret is for the address that was named, and for no other."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"it answers {error.code}"
    if isinstance(error, NotAnAddress):
        return str(error)
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "it did not answer in time"
    return str(getattr(reason, "strerror", None) or type(reason).__name__)
