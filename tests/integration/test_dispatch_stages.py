"""Stages on workers as the run sees them: results accepted, workers lost, late, refusing; workers here are scripts."""

import contextlib
import json
import subprocess
import sys
import threading
import uuid
from dataclasses import replace

import pytest

from data.core.params import UserError
from flows.pipeline import workspace
from flows.pipeline.store import Store
from flows.remote import dispatch, exchange, ledger, orders, pools
from flows.remote.dispatch import Ran
from flows.remote.ledger import Beat, Outcome
from flows.remote.roster import Entry
from flows.retrain import job
from flows.retrain.job import Again
from flows.settings import Settings
from flows.stage.process import StageFailed, Stopped

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("own_environment")]


@pytest.fixture(scope="module")
def made(make_toy, tmp_path_factory):
    """The small project with an origin, its dvc.lock after a run of all stages here, and their outputs in a remote."""
    root = tmp_path_factory.mktemp("made")
    (root / "project").mkdir()
    toy = make_toy(root / "project")
    toy.git("clone", "--quiet", "--bare", ".", str(root / "origin.git"))
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=toy.root, check=True)
    store = Store(toy.root)
    workspace.order_lock(toy.root, [stage.name for stage in store.stages])
    lock = (toy.root / "dvc.lock").read_bytes()
    entries = {stage.name: json.loads(json.dumps(store.entry(stage), sort_keys=True)) for stage in store.stages}
    store.close()
    moving = exchange.open(Settings(root=toy.root, remote=str(root / "remote")), toy.root / ".dvc" / "cache")
    moving.push(out["md5"] for entry in entries.values() for out in entry["outs"])
    return root, lock, entries


class Pool:
    """A pool whose workers do what a test says; the ledger between them and the run is a real one."""

    def __init__(self, book, entries):
        self.book, self.entries, self.idle = book, entries, 0
        self.scripts, self.stands = [], []  # what workers and Prefect will do
        self.placed, self.asked, self.ended, self.threads = {}, [], [], []

    def place(self, attempt):
        if attempt.token in self.placed:
            return self.placed[attempt.token]
        self.placed[attempt.token] = uuid.uuid4()
        self.asked.append(attempt)
        script = self.scripts.pop(0) if self.scripts else self.succeed
        self.threads.append(threading.Thread(target=script, args=(attempt,)))
        self.threads[-1].start()
        return self.placed[attempt.token]

    def stand(self, flow_run):
        return self.stands.pop(0) if self.stands else "waiting"

    def end(self, flow_run, why, *, cancelled):
        self.ended.append((why, cancelled))

    def workers(self, pool, store=None):
        return tuple(pools.Worker(Entry(f"w{i}", pool), True) for i in range(self.idle))

    # scripts

    def succeed(self, attempt, **changes):
        self.book.beat(attempt, Beat(1, "w", "step 1"))
        entry = {} if attempt.work.part else self.entries[attempt.work.stage]
        self.book.close(attempt, replace(Outcome("succeeded", "w", "far", entry=entry, log="done\n"), **changes))

    def begin(self, attempt):
        self.book.beat(attempt, Beat(1, "silent"))

    def ending(self, state, **about):
        return lambda attempt: self.book.close(attempt, Outcome(state, "w", "far", why="words", **about))


@pytest.fixture
def setting(made, tmp_path, monkeypatch):
    """A clone that has never run anything, with the remote of one that has, and no worker yet."""
    root, _, entries = made
    subprocess.run(["git", "clone", "--quiet", root / "origin.git", tmp_path / "clone"], check=True)
    subprocess.run(["cp", "-r", root / "remote", tmp_path / "remote"], check=True)
    for name in ("REMOTE", "LEDGER"):
        monkeypatch.setenv(f"REMINT_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("REMINT_STAGES", "workers")
    monkeypatch.setenv("REMINT_VANISHED", "3")
    monkeypatch.setattr(dispatch, "POLL_SECONDS", 0.05)
    pool = Pool(ledger.open(Settings(root=tmp_path, ledger=str(tmp_path / "ledger"))), entries)
    for name in ("place", "stand", "end"):
        monkeypatch.setattr(orders, name, getattr(pool, name))
    monkeypatch.setattr(pools, "workers", pool.workers)
    monkeypatch.setattr("flows.remote.watch.ORDER_SECONDS", 0.1)
    yield tmp_path / "clone", pool
    for thread in pool.threads:
        thread.join()


@pytest.fixture
def run(setting):
    """dispatcher, pool, and a function that brings one stage up to date."""
    clone, pool = setting
    with prepared(clone) as dispatcher:
        yield dispatcher, pool, lambda name, stop=None: bring(dispatcher, name, stop)


@contextlib.contextmanager
def prepared(clone):
    with job.prepared(clone) as ready:
        yield dispatch.dispatcher(ready)


def bring(dispatcher, name, stop=None):
    stage = next(stage for stage in dispatcher.job.stages if stage.name == name)
    log = dispatcher.job.folder / "logs" / f"{name}.log"
    return dispatcher.run(stage, log, lambda text, whole: None, stop or threading.Event(), lambda reading: None)


def attempts(pool, dispatcher, name="base"):
    works = {work.stage: work for work in dispatcher._asked if not work.part}
    return pool.book.attempts(works[name])


def test_a_run_on_workers_writes_the_lock_of_a_run_here_byte_for_byte_and_a_second_finds_everything(made, setting):
    clone, pool = setting
    with prepared(clone) as dispatcher:
        stages = [stage.name for stage in dispatcher.job.stages]
        assert [bring(dispatcher, name).action for name in stages] == ["ran"] * 5
        for stage in dispatcher.job.stages:
            dispatcher.show(stage)
        root = dispatcher.job.run.workspace
        assert json.loads((root / "artifacts/left/metrics.json").read_text()) == {"psnr": 20.5}
        assert (root / "artifacts/left/figures/square.png").exists()
        assert not (root / "artifacts/left/text.txt").exists()
        dispatcher.deliver()
        assert (root / "artifacts/end/text.txt").exists()
        dispatcher.close()
        workspace.order_lock(root, stages)
        assert (root / "dvc.lock").read_bytes() == made[1]
        assert "done" in (dispatcher.job.folder / "logs" / "base.log").read_text()
    assert pool.book.store.list("") == []  # what was accepted is forgotten
    placed = len(pool.placed)
    subprocess.run(["rm", "-rf", clone / ".dvc" / "cache"], check=True)
    with prepared(clone) as again:
        assert [step.action for step in again.job.plan.steps] == ["restore"] * 5  # the remote alone knows
        assert [bring(again, name).action for name in stages] == ["restored"] * 5
        again.close()
        workspace.order_lock(again.job.run.workspace, stages)
        assert (again.job.run.workspace / "dvc.lock").read_bytes() == made[1]
    assert len(pool.placed) == placed


def test_a_silent_worker_is_given_up_and_its_late_result_does_not_count(run):
    _, pool, bring = run
    pool.scripts = [pool.begin]
    assert bring("base").host == "far"
    late, second = pool.asked
    assert (late.number, second.number) == (1, 2)
    assert pool.ended == [("silent gave no sign of life for 3 s", False)]
    assert pool.book.outcome(late).state == "vanished"
    assert not pool.book.close(late, Outcome("succeeded", entry=pool.entries["base"]))
    assert pool.book.store.list("") == []


def test_a_stage_that_was_given_back_goes_on_elsewhere_and_several_times(run):
    _, pool, bring = run
    pool.scripts = [pool.ending("given back")] * 7
    assert bring("base").action == "ran"
    assert len(pool.placed) == 8


def test_a_failed_stage_fails_with_the_workers_words_and_its_retry_is_a_new_attempt(run):
    dispatcher, pool, bring = run
    pool.scripts = [pool.ending("failed", log="its last line\n"), pool.ending("failed", retry=False)]
    with pytest.raises(StageFailed, match="base: words") as error:
        bring("base")
    assert error.value.retry
    assert error.value.tail()[-1] == "its last line"
    with pytest.raises(StageFailed) as error:
        bring("base")
    assert not error.value.retry
    assert [attempt.number for attempt in attempts(pool, dispatcher)] == [1, 2]
    dispatcher.close()
    assert attempts(pool, dispatcher) == []


def test_a_refusal_fails_at_once(run):
    _, pool, bring = run
    pool.scripts = [pool.ending("refused")]
    with pytest.raises(StageFailed, match="base: words") as error:
        bring("base")
    assert not error.value.retry


def test_a_stage_that_takes_worker_after_worker_down_fails(run):
    _, pool, bring = run
    pool.scripts = [pool.ending("vanished")] * 5
    with pytest.raises(StageFailed, match="5 workers were lost over it, the last because: words"):
        bring("base")


def test_what_a_dead_run_left_in_the_ledger_is_taken_up(setting):
    clone, pool = setting
    with prepared(clone) as killed:
        killed._wait = lambda watches, stop: (_ for _ in ()).throw(KeyboardInterrupt)  # nothing is closed
        with pytest.raises(KeyboardInterrupt):
            bring(killed, "base")
        [left] = attempts(pool, killed)
    pool.succeed(left)  # its worker knows nothing of that
    with prepared(clone) as heir:
        assert bring(heir, "base").action == "ran"
    assert not pool.placed  # nobody was asked again


def test_two_runs_that_want_the_same_work_share_one_attempt(setting):
    clone, pool = setting
    begun = threading.Event()
    pool.scripts = [lambda attempt: begun.wait(20) and pool.succeed(attempt)]
    with prepared(clone) as one, prepared(clone) as other:
        ran = []
        threads = [threading.Thread(target=lambda d=d: ran.append(bring(d, "base").action)) for d in (one, other)]
        for thread in threads:
            thread.start()
        while not all(dispatcher._asked for dispatcher in (one, other)):
            threading.Event().wait(0.05)
        begun.set()
        for thread in threads:
            thread.join()
    assert sorted(ran) in (["ran", "ran"], ["ran", "restored"])
    assert len(pool.placed) == 1


def test_a_stopped_run_gives_its_attempt_back(run):
    dispatcher, pool, bring = run
    stop = threading.Event()
    pool.scripts = [lambda attempt: (pool.begin(attempt), stop.set())]
    with pytest.raises(Stopped):
        bring("base", stop)
    [attempt] = attempts(pool, dispatcher)
    assert pool.book.outcome(attempt).state == "given back"
    assert pool.ended == [("the run was stopped", True)]


PROOF = f"reproduce-{'0' * 16}"


def test_a_reproduction_runs_what_is_known_and_what_it_gives_is_for_nobody_else(run):
    dispatcher, pool, bring = run
    assert bring("base").action == "ran"
    assert bring("base").action == "restored"
    runs = [dispatcher.job.store.accepted.here, dispatcher.job.settings.root.parent / "remote" / "runs"]
    known = [sorted(place.rglob("*")) for place in runs]
    dispatcher.job = replace(dispatcher.job, again=Again(PROOF, {}, {"base": {"OMP_NUM_THREADS": "3"}}))
    other = json.loads(json.dumps(pool.entries["base"]))
    other["outs"][0]["md5"] = pool.entries["right@a"]["outs"][0]["md5"]
    pool.scripts = [lambda attempt: pool.succeed(attempt, entry=other, environment="{}")]
    assert bring("base") == Ran("ran", "far", environment="{}")
    assert pool.asked[-1].work.proof == PROOF
    assert pool.asked[-1].work.variables == {"OMP_NUM_THREADS": "3"}
    assert dispatcher.entries["base"]["outs"] == other["outs"]
    assert [sorted(place.rglob("*")) for place in runs] == known
    dispatcher.close()
    assert bring("base").action == "ran"  # as one that was killed finds it
    assert len(pool.placed) == 2
    dispatcher.forget()
    assert pool.book.store.list("") == []


def test_a_reproduction_hands_on_the_inputs_that_are_given(run):
    dispatcher, pool, bring = run
    alone = tuple(replace(one, upstream=()) for one in dispatcher.job.stages if one.name == "right@a")
    given = {"base": pool.entries["base"]}
    dispatcher.job = replace(dispatcher.job, stages=alone, again=Again(PROOF, given, {}))
    assert bring("right@a").action == "ran"
    assert dict(pool.asked[0].work.lock) == given
    assert list(dispatcher.entries) == ["right@a"]


def test_a_reproduction_does_not_take_a_result_that_is_not_what_was_asked_for(run):
    dispatcher, pool, bring = run
    dispatcher.job = replace(dispatcher.job, again=Again(PROOF, {}, {}))
    wrong = json.loads(json.dumps(pool.entries["base"]))
    wrong["outs"][0]["md5"] = "0" * 32
    pool.scripts = [lambda attempt: pool.succeed(attempt, entry=wrong)]
    assert bring("base").action == "ran"
    assert dispatcher.entries["base"]["outs"] == pool.entries["base"]["outs"]


@pytest.mark.parametrize("wrong", ["other deps", "outs that are nowhere"])
def test_a_result_that_is_not_what_was_asked_for_is_not_accepted(run, wrong):
    dispatcher, pool, bring = run
    entry = json.loads(json.dumps(pool.entries["base"]))
    entry["deps" if wrong == "other deps" else "outs"][0]["md5"] = "0" * 32
    pool.scripts = [lambda attempt: pool.succeed(attempt, entry=entry)]
    assert bring("base").action == "ran"
    assert len(pool.placed) == 2
    assert dispatcher.entries["base"]["outs"][0]["md5"] == pool.entries["base"]["outs"][0]["md5"]


def test_parts_go_to_the_idle_workers_and_then_the_whole_stage_to_one(run):
    dispatcher, pool, bring = run
    seen = []
    stages = tuple(replace(one, meta=replace(one.meta, parts=one.name == "base")) for one in dispatcher.job.stages)
    dispatcher.job = replace(dispatcher.job, stages=stages)
    pool.idle = 2
    pool.scripts = [
        pool.ending("given back"),
        *[lambda attempt: (seen.append(attempt.work.part), pool.succeed(attempt))] * 3,
    ]
    assert bring("base").action == "ran"
    assert sorted(seen) == ["", "1/2", "2/2"]
    assert seen[-1] == ""
    dispatcher.close()
    assert pool.book.store.list("") == []


@pytest.mark.parametrize(
    ("stand", "placed"),
    [("lost", 1), ("ended", 2), ("taken", 2)],
    ids=["the server lost it", "its worker died at once", "its worker took it and was gone"],
)
def test_an_attempt_that_nobody_begins_is_looked_after(run, stand, placed):
    _, pool, bring = run
    calls = []
    place = pool.place
    orders.place = lambda attempt: calls.append(attempt.token) or place(attempt)
    waiting = threading.Event()
    pool.scripts = [lambda attempt: stand == "lost" and waiting.wait(1) is False and pool.succeed(attempt)]
    pool.stands = [stand] * (1 if stand == "lost" else 200)
    assert bring("base").action == "ran"
    assert len(pool.placed) == placed
    assert len(calls) >= 2


def test_an_attempt_that_a_person_cancelled_fails(run):
    _, pool, bring = run
    pool.scripts, pool.stands = [lambda attempt: None], ["cancelled"]
    with pytest.raises(StageFailed, match="was cancelled in Prefect"):
        bring("base")


def test_a_ledger_that_is_away_for_a_while_gives_nobody_up(run, monkeypatch):
    dispatcher, pool, bring = run
    away = iter(range(40))
    outcome = dispatcher.ledger.outcome

    def failing(attempt):
        if next(away, None) is not None:
            raise UserError("the store does not answer")
        return outcome(attempt)

    monkeypatch.setattr("flows.remote.patience.FIRST", 0.01)
    monkeypatch.setattr(dispatcher.ledger, "outcome", failing)
    assert bring("base").action == "ran"
    assert len(pool.placed) == 1
