"""Kill promotions, rollbacks and the end of runs, let the doctor repair, and look at all four places.

    python killed_release.py TEMPLATE FOLDER promote boundaries 6     at 6 of them, chosen by a seed; 0: at all
    python killed_release.py TEMPLATE FOLDER finish instants 50
    python killed_release.py TEMPLATE FOLDER race processes 8         nobody is killed; they all promote at once

A boundary is the moment just before or just after one call that changes bucket, catalogue, MLflow or git; an instant
is a part of the time that the whole operation takes. The first line printed is the number of boundaries and the
seconds; then a line for each kill, as JSON. Each case works in a process forked from this one, which has imported
everything and opened nothing, on a fresh copy of the template.
"""

import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from sqlalchemy import select

from flows import repository
from flows.catalogue import journal, schema
from flows.catalogue.database import Catalogue
from flows.doctor import checks
from flows.pipeline import run_record
from flows.release import bundle, killed, of_run, pointers, projections, promote, recorded, rollback, stores
from flows.release.stores import Stores
from flows.retrain import finalise
from flows.settings import Settings
from flows.storage import folder

SEED = 7
LAZY = ("dvc.repo", "dvc.stage", "flows.retrain.report", "mlflow.pyfunc", "mlflow.store.tracking.sqlalchemy_store")
WRITES = (
    (folder.FolderBucket, "create"),
    (folder.FolderBucket, "upload"),
    (Catalogue, "write"),
    (Catalogue, "begin"),
    (finalise, "save"),
    (killed, "unmark"),
    (repository, "git"),
    *((MlflowClient, name) for name in ("set_registered_model_alias", "set_model_version_tag", "create_model_version")),
    *((MlflowClient, name) for name in ("create_run", "create_logged_model", "log_batch", "set_terminated")),
)
READING = ("for-each-ref", "rev-parse", "config", "cat-file", "ls-tree", "show", "status", "check-ignore", "rev-list")


def newest(places: Stores) -> Any:
    found = run_record.load(places.settings, recorded.find(places, None).id)
    assert found is not None
    return found


OPERATIONS: dict[str, Callable[[Stores], object]] = {
    "promote": lambda places: of_run.promote_run(places, "images", None, "me", ""),
    "rollback": lambda places: rollback.rollback(places, "images", None, "me"),
    "finish": lambda places: finalise.complete(places, newest(places)),
}


class Boundaries:
    """Counts calls that change something, and dies at the one that was asked for."""

    def __init__(self, fatal: int) -> None:
        self.count, self.fatal = 0, fatal

    def pass_one(self) -> None:
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        for owner, name in WRITES:
            setattr(owner, name, self._watched(getattr(owner, name), name))

    def _watched(self, call: Callable, name: str) -> Callable:
        def watched(*arguments: Any, **named: Any) -> Any:
            if name == "git" and arguments[1] in READING:
                return call(*arguments, **named)
            self.pass_one()
            made = call(*arguments, **named)
            if name == "begin":
                return self._transaction(made)
            self.pass_one()
            return made

        return watched

    @contextlib.contextmanager
    def _transaction(self, made: Any) -> Iterator[Any]:
        with made as session:
            yield session
        self.pass_one()


def state(places: Stores) -> dict[str, Any]:
    """What stands after the repair, and what is wrong with it."""
    wrong = [str(result) for result in checks.examine(places)]
    stands = {}
    for family in ("images", "depth"):
        log = pointers.log(places.bucket, family)
        stands[family] = {m.model: m.version for m in log[-1].members} | {"number": log[-1].number}
        for compare in projections.PLACES.values():
            wrong += [str(finding) for finding in compare(places, family, log)]
        for member in {member for pointer in log for member in pointer.members}:
            bundle.fetch(places.bucket, member.model, member.bundle, places.settings.home / "fetched" / member.bundle)
    with places.catalogue.read() as session:
        wrong += journal.verify(session)
        wrong += session.scalars(select(schema.Procedure.id).where(schema.Procedure.state == "open")).all()
        releases = session.scalars(select(schema.Entry.subject).where(schema.Entry.kind.in_(("release", "rollback"))))
        subjects = list(releases)
    wrong += [f"twice in the journal: {subject}" for subject in set(subjects) if subjects.count(subject) > 1]
    return {"stands": stands, "wrong": wrong}


def forked(work: Callable[[], None]) -> int:
    """Start `work` in a process of its own and return its id."""
    child = os.fork()
    if child:
        return child
    try:
        os.chdir(ROOT)
        work()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def operate(operation: str, fatal: int) -> None:
    boundaries = Boundaries(fatal)
    boundaries.watch()
    began = time.monotonic()
    with stores.opened(Settings(root=ROOT)) as places:
        OPERATIONS[operation](places)
    (ROOT.parent / "whole.json").write_text(json.dumps([boundaries.count, time.monotonic() - began]))


def repaired() -> None:
    with stores.opened(Settings(root=ROOT)) as places:
        left = [str(result) for result in checks.examine(places, repair=True) if not result.repaired]
        (ROOT.parent / "state.json").write_text(json.dumps({"left": left} | state(places)))


def fresh(template: Path, operation: str) -> None:
    """The template again, at the same place."""
    shutil.rmtree(ROOT, ignore_errors=True)
    shutil.copytree(template, ROOT, symlinks=True)
    if operation == "finish":  # the newest run stopped behind its tag
        noted = max((ROOT / ".remint/runs").glob("*/run.json"))
        noted.write_text(noted.read_text().replace('"finished": true', '"finished": false'))


def case(template: Path, operation: str, fatal: int, after: float | None = None) -> dict[str, Any]:
    """One kill: at a boundary, or after some seconds; and what stands once the doctor has been there."""
    fresh(template, operation)
    child = forked(lambda: operate(operation, fatal))
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert os.waitpid(forked(repaired), 0)[1] == 0
    return {"killed": killed, "at": fatal or after, **json.loads((ROOT.parent / "state.json").read_text())}


def race(template: Path, processes: int) -> list[dict[str, Any]]:
    """All promote the newest run at once: each has been judged before any of them writes."""
    fresh(template, "race")
    ready = ROOT.parent / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    ready.mkdir()

    def run(number: int) -> None:
        judged = promote.promote

        def together(*arguments: Any) -> promote.FamilyOutcome:
            (ready / str(number)).touch()
            while len(list(ready.iterdir())) < processes:
                time.sleep(0.01)
            return judged(*arguments)

        promote.promote = together
        with stores.opened(Settings(root=ROOT)) as places:
            outcome = of_run.promote_run(places, "images", None, f"person {number}", "")
        (ROOT.parent / f"outcome{number}.json").write_text(json.dumps({"number": number, **outcome.to_json()}))

    children = [forked(lambda number=number: run(number)) for number in range(processes)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * processes
    outcomes = [json.loads((ROOT.parent / f"outcome{number}.json").read_text()) for number in range(processes)]
    assert os.waitpid(forked(repaired), 0)[1] == 0
    return [json.loads((ROOT.parent / "state.json").read_text()), *outcomes]


def kills(template: Path, operation: str, kind: str, wanted: int) -> Iterator[dict[str, Any]]:
    """The whole operation first, then the cases; 0 boundaries are all of them."""
    whole = case(template, operation, 0)
    count, seconds = json.loads((ROOT.parent / "whole.json").read_text())
    yield {"boundaries": count, "seconds": seconds, **whole}
    chance = random.Random(SEED)
    if kind == "instants":
        for _ in range(wanted):
            yield case(template, operation, 0, chance.random() * seconds)
        return
    every = range(1, count + 1)
    for fatal in sorted(chance.sample(every, wanted)) if wanted else every:
        yield case(template, operation, fatal)


if __name__ == "__main__":
    for name in LAZY:
        importlib.import_module(name)
    template, ROOT = Path(sys.argv[1]), Path(sys.argv[2]) / "project"
    ROOT.parent.mkdir(exist_ok=True)
    operation, kind, wanted = sys.argv[3], sys.argv[4], int(sys.argv[5])
    for line in race(template, wanted) if operation == "race" else kills(template, operation, kind, wanted):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
