"""A catalogue of many years, on SQLite and PostgreSQL: what `remint status` and its queries take there."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text
from sqlalchemy.orm import Session

from flows.catalogue import database, journal
from flows.catalogue.schema import Decision, Edge, Execution, Member, ModelVersion, Release, Run
from flows.settings import Settings
from flows.show import status as state
from tests import postgres

MODELS = {"tokenizer": "images", "maskgit": "images", "depth-teacher": "depth", "depth-small": "depth"}
START = datetime(2026, 1, 1, tzinfo=UTC)
BATCH = 10_000


@contextlib.contextmanager
def filled(versions: int, releases: int) -> Iterator[dict[str, database.Catalogue]]:
    """Catalogues with so many model versions and releases, by the name of their database."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        addresses = {"SQLite": f"sqlite:///{scratch}/catalogue.db"}
        if postgres.programs() is not None:
            addresses["PostgreSQL"] = stack.enter_context(postgres.server()).empty_database()
        found = {}
        for name, address in addresses.items():
            found[name] = database.open(Settings(root=Path(scratch), catalogue=address))
            stack.callback(found[name].close)
            with found[name].begin() as session:
                fill(session, versions, releases)
                session.execute(text("ANALYZE"))  # as PostgreSQL does by itself within a minute
        yield found


def read(catalogue: database.Catalogue) -> Callable[[], object]:
    """What `remint status` asks, in one transaction."""

    def call() -> object:
        with catalogue.read() as session:
            return state.read(session, ["images", "depth"])

    return call


def fill(session: Session, versions: int, releases: int) -> None:
    """Write runs that make one version of each model, a release of each family now and then, and what comes with it.

    Each release's models were reproduced; of a hundred versions one waits for approval, one stage alarmed.
    """
    runs, size = versions // len(MODELS), len(MODELS)
    _write(session, Run, (_run(number) for number in range(1, runs + 1)))
    _write(session, Execution, (_execution(n, stage) for n in range(1, runs + 1) for stage in (*MODELS, "scenes")))
    _write(session, ModelVersion, (_version(n, i, name) for n in range(1, runs + 1) for i, name in enumerate(MODELS)))
    _write(session, Edge, ({"version_id": i, **_edge(i)} for i in range(1, runs * size + 1)))
    _write(session, Decision, (_decision(i, (i - 1) // size + 1) for i in range(1, runs * size + 1)))
    every = max(1, 2 * runs // releases)
    released = [(number, family) for number in range(every, runs, every) for family in ("images", "depth")]
    _write(session, Release, (_release(i, number, family) for i, (number, family) in enumerate(released, 1)))
    members = (_members(i, number, family) for i, (number, family) in enumerate(released, 1))
    _write(session, Member, itertools.chain.from_iterable(members))
    for number, family in released:
        journal.append(session, "release", f"{family} #{number}", {"number": number})
        for name in _of(family):
            journal.append(session, "reproduction", f"{name}@v{number}", {"verdict": "identical"})
    outputs = [_digest("a"), _digest("b")]
    journal.append(session, "alarm", "tokenizer", {"input": _digest("i"), "outputs": outputs, "runs": ["one", "two"]})


def _write(session: Session, table: type, rows: Iterator[dict[str, Any]]) -> None:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            session.execute(insert(table), batch)
            batch = []
    if batch:
        session.execute(insert(table), batch)


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _of(family: str) -> list[str]:
    return [name for name, its in MODELS.items() if its == family]


def _run(number: int) -> dict[str, Any]:
    name, at = f"run-{number:06d}", START + timedelta(hours=number)
    digests = {"parameters": _digest(number), "environment": _digest("here"), "commit": _digest("c", number)[:40]}
    about = {"tag": f"run/{name}", "base_commit": _digest("b", number)[:40], "trigger": "schedule", "machine": "x86_64"}
    return {"id": name, "seq": number, "state": "done", "started": at, "ended": at, **digests, **about}


def _execution(number: int, stage: str) -> dict[str, Any]:
    digests = {"input_digest": _digest(stage, number), "output_digest": _digest("out", stage, number)}
    return {"run_id": f"run-{number:06d}", "stage": stage, "seconds": 60.0, "host": "h", "action": "ran", **digests}


def _version(number: int, index: int, name: str) -> dict[str, Any]:
    about = {"id": (number - 1) * len(MODELS) + index + 1, "family": MODELS[name], "name": name, "number": number}
    made = {"weights": _digest(name, number), "run_id": f"run-{number:06d}", "mlflow_run": "m", "created": START}
    return {**about, **made, "tag": f"{name}@v{number}.0.0", "metrics": {"psnr": 24.1, "delta1": 0.9}}


def _edge(version: int) -> dict[str, Any]:
    return {"kind": "data", "name": "scenes", "digest": _digest("data", version // 1000)}


def _decision(version: int, run: int) -> dict[str, Any]:
    rules = [{"name": f"rule {i}", "passed": True, "candidate": 1.0, "limit": 0.5} for i in range(5)]
    verdict = "waiting" if version % 100 == 0 else "passed"
    about = {"version_id": version, "run_id": f"run-{run:06d}", "against": None, "verdict": verdict, "rules": rules}
    return {**about, "reason": "one metric is better by more than noise", "created": START}


def _release(identifier: int, number: int, family: str) -> dict[str, Any]:
    about = {"id": identifier, "family": family, "number": number, "restores": None, "run_id": f"run-{number:06d}"}
    return {**about, "pointer": _digest(family, number), "who": "Ada", "why": "better", "created": START}


def _members(release: int, number: int, family: str) -> list[dict[str, Any]]:
    return [
        {"release_id": release, "model": name, "version": number, "weights": _digest(name, number)}
        for name in _of(family)
    ]
