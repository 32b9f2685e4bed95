"""Production now and before: what is released, waits, is unfinished or alarming; the releases of a family in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from flows.catalogue import queries
from flows.catalogue.queries import CurrentRelease, Logged, Past, ReleasedModel, Unfinished, Waiting
from flows.pipeline.run import headline
from flows.release import pointers
from flows.release.gates import decision as words
from flows.release.pointers import Pointer
from flows.show.columns import columns
from models.metrics import METRICS

RUNS = 5


@dataclass(frozen=True)
class Status:
    """The state of a project as its catalogue knows it."""

    production: Mapping[str, CurrentRelease | None]  # by family; None: never released
    reproductions: Mapping[str, Logged]  # by title of the version in production, "tokenizer@v3"
    waiting: tuple[Waiting, ...]
    unfinished: tuple[Unfinished, ...]
    alarms: tuple[Logged, ...]
    runs: tuple[Past, ...]


def read(session: Session, families: Iterable[str]) -> Status:
    """Everything in one reading; `families` are those of the graph, also if nothing of them was released."""
    released = queries.production(session)
    production = {family: released.get(family) for family in sorted({*families, *released})}
    titles = [member.title for one in released.values() for member in one.members]
    return Status(
        production=production,
        reproductions=queries.reproductions(session, titles),
        waiting=tuple(queries.waiting(session, production)),
        unfinished=tuple(queries.unfinished(session)),
        alarms=tuple(queries.alarms(session)),
        runs=tuple(queries.last_runs(session, RUNS)),
    )


def to_json(status: Status) -> dict[str, Any]:
    """The status as JSON values; each model in production has its last reproduction beside it."""
    values = asdict(status)
    last = values.pop("reproductions")
    for family, released in status.production.items():
        for i, member in enumerate(released.members if released else ()):
            found = last.get(member.title)
            shown = {"verdict": found["body"]["verdict"], "at": found["at"]} if found else None
            values["production"][family]["members"][i]["reproduction"] = shown
    return values


def text(status: Status) -> str:
    """The status for people, in blocks; an empty one is left out."""
    blocks = [_production(family, one, status) for family, one in status.production.items()]
    blocks += [_block(title, lines) for title, lines in _lists(status).items() if lines]
    return "\n\n".join(blocks) or "nothing was made here yet: remint retrain"


def history(log: Sequence[Pointer]) -> str:
    """A line for each release of a family, the newest first: what it changed, from which run, by whom and why."""
    rows = [
        (
            f"#{pointer.number}",
            pointer.at.replace("T", " ").partition("+")[0],
            pointer.who.partition(" <")[0],
            pointer.run,
            pointers.changes(before, pointer),
            "; ".join(filter(None, (f"restores #{pointer.restores}" if pointer.restores else "", pointer.why))),
        )
        for before, pointer in zip([None, *log], log, strict=False)
    ]
    return columns([("release", "at", "by", "run", "models", ""), *reversed(rows)])


def history_json(log: Sequence[Pointer]) -> list[dict[str, Any]]:
    """Every release with all that its pointer holds, the oldest first."""
    return [asdict(pointer) | {"digest": pointers.digest(pointer)} for pointer in log]


def _lists(status: Status) -> dict[str, list[tuple[str, ...]]]:
    """What follows production, by title, each thing with the command that deals with it."""
    return {
        "waiting for approval": [
            (
                f"{one.model} v{one.version}",
                one.run,
                one.reason,
                words.look(one.family, one.run) if status.production.get(one.family) else "",
                words.approve(one.model, one.version),
            )
            for one in status.waiting
        ],
        "unfinished": [
            (f"{one.kind} {one.family} #{one.number}", f"since {_time(one.since)}", "remint doctor --repair")
            for one in status.unfinished
        ],
        "alarms": [(f"#{one.seq}", _alarm(one), f'remint settle {one.seq} --why "..."') for one in status.alarms],
        "last runs": [(one.id, one.state, one.trigger, _stages(one)) for one in status.runs],
    }


def _production(family: str, released: CurrentRelease | None, status: Status) -> str:
    if released is None:
        return f"{family}: nothing in production"
    back = f", as in #{released.restores}" if released.restores else ""
    title = f"{family} #{released.number}{back}: in production since {_time(released.since)}, by {released.who}"
    lines = [
        (one.model, f"v{one.version}", _metric(one), _reproduced(status.reproductions.get(one.title)))
        for one in released.members
    ]
    return _block(f"{title}\n  {released.why or 'no reason given'}; run {released.run}", lines)


def _metric(one: ReleasedModel) -> str:
    key = headline(one.metrics)
    if key is None:
        return ""
    unit = METRICS[key].unit if key in METRICS else ""
    return f"{key} {one.metrics[key]:.4g} {unit}".rstrip()


def _reproduced(last: Logged | None) -> str:
    return f"reproduced: {last.body['verdict']}, {last.at:%Y-%m-%d}" if last else "not reproduced yet"


def _alarm(logged: Logged) -> str:
    outputs = " and ".join(str(output)[:12] for output in logged.body.get("outputs", ()))
    where = " and ".join(dict.fromkeys(str(run) for run in logged.body.get("runs", ())))
    return f"{logged.subject}: outputs {outputs} for one input ({where})"


def _stages(run: Past) -> str:
    return ", ".join(f"{count} {action}" for action, count in sorted(run.stages.items()))


def _block(title: str, lines: Sequence[Sequence[str]]) -> str:
    return "\n".join([title, columns(lines, indent=2, headed=False)] if lines else [title])


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
