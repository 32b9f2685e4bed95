"""One attempt from the ledger to its outcome, in this process: what it leaves, what it costs, how it fails."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
import yaml

from flows import settings
from flows.pipeline import environment, workspace
from flows.remote import exchange, execute, ledger
from flows.remote.accept import Accepted
from flows.remote.execute import Host
from flows.remote.ledger import Beat, Outcome
from tests import disk, workers

pytestmark = pytest.mark.integration

STAGE = '''\
"""A stage of these tests: `python stage.py NAME OUT INPUT...`; it can count slowly and go on where it was stopped."""
import hashlib, os, signal, sys, time
from pathlib import Path

name, out, *inputs = sys.argv[1:]
kept = Path(os.environ["REMINT_CHECKPOINTS"], f"{name}.txt")
steps, digest = 0, ""
if kept.exists():
    steps, digest = kept.read_text().split()
    steps = int(steps)
    print("going on from step", steps, flush=True)

def save(number, frame):
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(f"{steps} {digest}")
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
wanted = 40 if name == "slow" else 1
while steps < wanted:
    data = "".join(p.read_text() for i in inputs for p in sorted(Path(i).rglob("*")) if p.is_file())
    digest = hashlib.sha256((digest + data + str(steps)).encode()).hexdigest()
    steps += 1
    if wanted > 1:
        print(f"step {steps}", flush=True)
        time.sleep(0.05)
    while wanted > 1 and (kept.with_name("hold").exists() or Path(os.environ.get("TOY_HOLD", "/nowhere")).exists()):
        time.sleep(0.05)
if part := os.environ.get("REMINT_PART"):
    shard = Path(os.environ["REMINT_CHECKPOINTS"], f"{name}-{part.replace('/', '-of-')}")
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_text(digest)
    sys.exit()
if name == "broken":
    print("no such thing")
    sys.exit(3)
if name == "mistaken":
    sys.exit(2)
if name == "fat":
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_bytes(os.urandom(100 << 20))
    sys.exit()
Path(out).mkdir(parents=True)
Path(out, "digest.txt").write_text(digest)
if name == "first":
    Path(out, "more.bin").write_bytes(bytes(2_000_000))
kept.unlink(missing_ok=True)
'''

PROOF = f"reproduce-{'0' * 16}"
NAMES = ("slow", "broken", "mistaken", "fat")
DVC_YAML = "stages:\n" + "".join(
    f"  {name}:\n    cmd: python stage.py {name} artifacts/{name} {inputs}\n"
    f"    deps: [stage.py, {inputs or 'file.txt'}]\n    outs: [artifacts/{name}]\n"
    for name, inputs in [("first", ""), ("second", "artifacts/first"), ("third", "data"), *((n, "") for n in NAMES)]
)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository with the stages, whose `first` has run, and a bare origin beside it; read only."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("project") / "source"
    root.mkdir()

    def git(*words):
        subprocess.run(["git", *words], cwd=root, check=True)

    git("init", "--quiet", "--initial-branch=main")
    (root / "data").mkdir()
    (root / "data" / "photo with spaces.txt").write_text("a photograph")
    with contextlib.chdir(root), Repo.init() as repo:
        repo.add("data")
    (root / "stage.py").write_text(STAGE)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "file.txt").write_text("source\n")
    (root / "params.yaml").write_text("{}\n")
    (root / ".gitignore").write_text("/artifacts/\n/.remint/\n")
    git("add", "--all")
    git("commit", "--quiet", "--message", "Start")
    environment = os.environ | {"REMINT_CHECKPOINTS": str(root / ".remint" / "checkpoints")}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "first"], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    git("clone", "--quiet", "--bare", str(root), str(root.parent / "origin.git"))
    return root


class Machines:
    """Clones of the project with places in common, and attempts made by them in this process."""

    def __init__(self, folder, project):
        self.folder, self.project = folder, project
        self.said = []

    def host(self, name="one", pool="cpu"):
        clone = self.folder / name
        if not clone.exists():
            command = ["git", "clone", "--quiet", str(self.project.parent / "origin.git"), str(clone)]
            subprocess.run(command, check=True)
        return Host(settings.load(clone), name, pool)

    @property
    def ledger(self):
        return ledger.open(self.host().settings)

    def ask(self, stage, **changes):
        attempt = self.ledger.open(workers.work(self.project, stage, **changes))
        assert attempt is not None
        return attempt

    def make(self, attempt, host=None, leave=None):
        place = attempt if isinstance(attempt, str) else attempt.place
        hear = lambda text, whole: self.said.append(text)  # noqa: E731
        return execute.attempt(host or self.host(), place, leave or threading.Event(), hear)

    @contextmanager
    def making(self, attempt, leave=None):
        """The attempt in a thread; yields the list that its end comes into."""
        ended = []
        thread = threading.Thread(target=lambda: ended.append(self.make(attempt, leave=leave)))
        thread.start()
        try:
            yield ended
        finally:
            thread.join(60)

    def until_it_says(self, text, seconds=40):
        until = time.monotonic() + seconds
        while not any(text in said for said in self.said):
            assert time.monotonic() < until, self.said
            time.sleep(0.02)

    def left(self, host):
        """What is still there of attempts that ended: worktrees, marks, logs, half objects."""
        worktrees = [p.name for p in host.settings.worktrees.glob("*") if p.name != ".lock"]
        cache = workspace.cache(host.settings)
        return worktrees + [p.name for p in (cache / exchange.SCRATCH).glob("*.partial")]


@pytest.fixture
def machines(project, tmp_path, monkeypatch):
    shared = tmp_path / "shared"
    for name, value in {
        "REMINT_REMOTE": shared / "dvc",
        "REMINT_LEDGER": shared / "ledger",
        "REMINT_CHECKPOINTS": shared / "checkpoints",
        "REMINT_VANISHED": "3",
    }.items():
        monkeypatch.setenv(name, str(value))
    made = Machines(tmp_path, project)
    lock = workers.work(project, "second").lock
    data = yaml.safe_load((project / "data.dvc").read_text())["outs"][0]["md5"]
    exchange.open(made.host().settings, project / ".dvc" / "cache").push([lock["first"]["outs"][0]["md5"], data])
    return made


def test_a_stage_reads_its_inputs_runs_and_hands_on_its_outputs(machines):
    attempt = machines.ask("second")
    ended = machines.make(attempt)
    assert ended.counted, ended.outcome
    outcome = machines.ledger.outcome(attempt)
    assert outcome == ended.outcome
    assert outcome.state == "succeeded"
    assert outcome.entry["outs"][0]["path"] == "artifacts/second"
    assert execute.key.of_entry(outcome.entry) == attempt.work.key
    assert 2_000_000 < outcome.usage.bytes_in < 2_001_000
    assert 0 < outcome.usage.bytes_out < 1000
    assert outcome.usage.cpu_seconds > 0.1
    assert outcome.usage.peak_memory > 10 << 20
    assert outcome.usage.seconds > outcome.seconds > 0
    assert "python stage.py second" in outcome.log
    assert exchange.open(machines.host().settings, machines.folder / "other").fetch([outcome.entry["outs"][0]["md5"]])
    assert machines.ledger.last_beat(attempt).worker == "one"
    assert machines.left(machines.host()) == []
    assert not list((workspace.cache(machines.host().settings) / "runs").rglob("*"))  # only a run may remember it


def test_data_that_dvc_add_tracks_is_an_input_too(machines):
    ended = machines.make(machines.ask("third"))
    assert (ended.outcome.state, ended.counted) == ("succeeded", True), ended.outcome
    assert ended.outcome.usage.bytes_in > len("a photograph")


def test_a_second_reader_on_the_machine_moves_no_bytes(machines, monkeypatch):
    monkeypatch.setenv("REMINT_CACHE", str(machines.folder / "cache"))
    first = machines.make(machines.ask("second"), machines.host("one"))
    again = machines.ask("second", run="another", key=first.outcome.entry and machines.ask("second").work.key)
    second = machines.make(again, machines.host("two"))
    assert first.outcome.usage.bytes_in > 2_000_000
    assert (second.outcome.state, second.outcome.usage.bytes_in, second.outcome.usage.bytes_out) == ("succeeded", 0, 0)
    assert second.outcome.entry == first.outcome.entry


def test_a_stage_that_fails_says_why_and_whether_to_try_again(machines):
    attempt = machines.ask("broken")
    assert machines.make(attempt).counted
    outcome = machines.ledger.outcome(attempt)
    assert (outcome.state, outcome.why, outcome.retry) == ("failed", "failed with exit code 3", True)
    assert "no such thing" in outcome.log
    assert not machines.make(machines.ask("mistaken")).outcome.retry
    assert machines.left(machines.host()) == []


def test_a_worker_that_is_to_leave_gives_the_stage_back_and_another_goes_on_to_the_same_bytes(machines, monkeypatch):
    whole = machines.make(machines.ask("slow")).outcome
    machines.said.clear()
    monkeypatch.setenv("REMINT_REMOTE", str(machines.folder / "elsewhere"))
    leave, attempt = threading.Event(), machines.ask("slow")
    with machines.making(attempt, leave) as ended:
        machines.until_it_says("step 10")
        began = time.monotonic()
        leave.set()
    assert time.monotonic() - began < 5
    assert (ended[0].outcome.state, ended[0].counted) == ("given back", True)
    second = machines.make(machines.ask("slow"), machines.host("two")).outcome
    assert second.state == "succeeded"
    assert second.resumed
    assert any("going on from step 1" in said for said in machines.said)
    assert second.entry == whole.entry
    assert not whole.resumed


def test_a_reproduction_runs_a_stage_that_is_known_and_no_checkpoint_of_the_run_is_taken(machines):
    asked = machines.ask("first")
    whole = machines.make(asked).outcome
    runs = workspace.cache(machines.host().settings) / "runs"
    Accepted(runs).add(asked.work.key, whole.entry)
    known = sorted(runs.rglob("*"))
    (machines.folder / "shared" / "checkpoints").mkdir(exist_ok=True)
    (machines.folder / "shared" / "checkpoints" / "first.txt").write_text("1 another-digest")
    again = machines.make(machines.ask("first", proof=PROOF, variables={"OMP_NUM_THREADS": "1"})).outcome
    assert (again.state, again.entry, again.resumed) == ("succeeded", whole.entry, False)
    assert again.usage.bytes_out == 0
    assert environment.parse(again.environment).variables == {"OMP_NUM_THREADS": "1"}
    assert sorted(runs.rglob("*")) == known
    run = machines.make(machines.ask("first")).outcome  # as DVC does where nothing is to be proved
    assert ("is cached" in again.log, "is cached" in run.log) == (False, True)


def test_a_reproduction_goes_on_from_its_own_checkpoints_in_an_equal_environment(machines, monkeypatch):
    leave, kept, hold = threading.Event(), machines.folder / "shared" / "checkpoints", machines.folder / "hold"
    hold.touch()
    monkeypatch.setenv("TOY_HOLD", str(hold))
    with machines.making(machines.ask("slow", proof=PROOF), leave) as ended:
        machines.until_it_says("step 1")
        leave.set()
    hold.unlink()
    given_back = ended[0].outcome
    assert given_back.state == "given back"
    digest = environment.parse(given_back.environment).digest
    assert (kept / PROOF / digest[:16] / "slow.txt").exists()
    assert not (kept / "slow.txt").exists()
    assert machines.make(machines.ask("slow", proof=PROOF), machines.host("two")).outcome.resumed


def test_who_was_given_up_stops_at_once_and_publishes_nothing(machines):
    attempt = machines.ask("slow")
    with machines.making(attempt) as ended:
        machines.until_it_says("step 5")
        assert machines.ledger.close(attempt, Outcome("vanished", why="no beat"))
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert (ended[0].outcome.state, ended[0].counted) == ("vanished", False)
    assert machines.ledger.outcome(attempt) == Outcome("vanished", why="no beat")
    assert not list((machines.folder / "shared" / "dvc" / "files").rglob("*artifacts*"))
    assert machines.left(machines.host()) == []


def test_the_last_moment_is_fenced_too(machines, monkeypatch):
    attempt = machines.ask("first")
    push = exchange.Exchange.push

    def late(self, oids, stop=None):
        machines.ledger.close(attempt, Outcome("vanished"))
        return push(self, oids, stop)

    monkeypatch.setattr(exchange.Exchange, "push", late)
    ended = machines.make(attempt)
    assert (ended.counted, machines.ledger.outcome(attempt).state) == (False, "vanished")


def test_an_attempt_that_somebody_has_begun_or_closed_is_left_alone(machines):
    begun = machines.ask("broken")
    machines.ledger.beat(begun, Beat(1, "other"))
    ended = machines.make(begun)
    assert (ended.counted, ended.outcome.why) == (False, "other has begun it")
    assert machines.ledger.outcome(begun) is None
    closed = machines.ask("mistaken")
    machines.ledger.close(closed, Outcome("given back"))
    assert not machines.make(closed).counted
    assert machines.said == []


@pytest.mark.parametrize("place", ["../../../etc", "stages/../../x", "", "stages/none/of/0001", "/etc/passwd", "a\nb"])
def test_a_place_that_is_no_attempt_is_refused_and_nothing_is_touched(machines, place):
    ended = machines.make(place)
    assert (ended.counted, ended.outcome.state) == (False, "refused")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage": "frist"}, "did you mean 'first'?"),
        ({"commit": "d" * 40}, "commit dddddddddd is not in origin"),
        ({"pool": "gpu"}, "the stage is for pool gpu, and worker one serves cpu"),
        ({"part": "2/4/touch"}, "is not a part"),
        ({"environment": {"machine": "another"}}, "the run allows 'another'"),
        ({"environment": {"lock": "0" * 64}}, "another requirements.lock"),
        ({"lock": {}, "stage": "second"}, "does not say what artifacts/first is"),
        ({"proof": "reproduce"}, "is not the name of a reproduction"),
        ({"variables": {"PATH": "/evil"}}, "variable 'PATH' is not to be set"),
        ({"variables": {"OMP_NUM_THREADS": "1; evil"}}, "variable 'OMP_NUM_THREADS' is not to be set"),
        ({"key": "0" * 64}, "has key"),
    ],
)
def test_what_a_worker_must_not_run_is_refused_with_words(machines, changes, words):
    attempt = machines.ledger.open(replace(workers.work(machines.project, "first"), **changes))
    assert attempt is not None
    assert machines.make(attempt).counted
    outcome = machines.ledger.outcome(attempt)
    assert (outcome.state, outcome.retry) == ("refused", False)
    assert words in outcome.why
    assert machines.left(machines.host()) == []


@pytest.mark.parametrize("changes", [{name: "../../evil"} for name in ("stage", "key", "commit", "proof")])
def test_an_attempt_that_was_tampered_with_leads_nowhere(machines, changes):
    attempt = machines.ask("first")
    path = machines.folder / "shared" / "ledger" / attempt.place / "attempt.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"work": values["work"] | changes}))
    ended = machines.make(attempt)
    assert ended.outcome.state == "refused"
    assert not list(machines.folder.rglob("*evil*"))


def test_a_part_is_made_into_the_checkpoints_and_writes_no_outputs(machines):
    attempt = machines.ledger.open(ledger.part(workers.work(machines.project, "first"), 2, 4))
    assert machines.make(attempt).outcome.state == "succeeded"
    assert machines.ledger.outcome(attempt).entry == {}
    assert (machines.folder / "shared" / "checkpoints" / "first-2-of-4").exists()
    assert machines.ledger.outcome(attempt).usage.bytes_out == 0


def test_an_input_that_the_remote_lost_is_named(machines):
    work = workers.work(machines.project, "second")
    oid = work.lock["first"]["outs"][0]["md5"]
    (machines.folder / "shared" / "dvc" / "files" / "md5" / oid[:2] / oid[2:]).unlink()
    outcome = machines.make(machines.ledger.open(work)).outcome
    assert outcome.state == "failed"
    assert f"files/md5/{oid[:2]}/{oid[2:]}" in outcome.why


def test_what_stages_behind_will_read_is_fetched_while_this_one_works(machines):
    place = exchange.open(machines.host().settings, machines.project / ".dvc" / "cache")
    oid = workers.work(machines.project, "second").lock["first"]["outs"][0]["md5"]
    machines.make(machines.ask("slow", soon=(oid, "0" * 32)))
    here = exchange.open(machines.host().settings, workspace.cache(machines.host().settings))
    assert here.fetch([oid]).bytes == 0
    assert here.members(oid) == place.members(oid)


def test_what_is_fetched_ahead_leaves_the_stage_its_space(machines, monkeypatch):
    monkeypatch.setattr(execute.space, "SPARE", 1 << 60)
    oid = workers.work(machines.project, "second").lock["first"]["outs"][0]["md5"]
    assert machines.make(machines.ask("first", soon=(oid,))).outcome.usage.bytes_in == 0


def test_work_that_is_done_is_handed_on_although_the_worker_is_to_leave(machines, monkeypatch):
    leave, run = threading.Event(), execute.process.run

    def last(*arguments):
        done = run(*arguments)
        leave.set()
        time.sleep(0.5)  # until it is noticed
        return done

    monkeypatch.setattr(execute.process, "run", last)
    ended = machines.make(machines.ask("first"), leave=leave)
    assert (ended.outcome.state, ended.counted) == ("succeeded", True)


@disk.needed
def test_a_full_disk_fails_the_stage_cleanly_and_frees_what_it_took(machines, monkeypatch):
    with disk.small(machines.folder, monkeypatch) as free:
        before = free()
        outcome = machines.make(machines.ask("fat"), machines.host("small")).outcome
        assert (outcome.state, outcome.retry) == ("failed", True)
        assert "is full" in outcome.why
        assert free() > before - 400_000
    assert machines.make(machines.ask("fat"), machines.host("large")).outcome.state == "succeeded"


def test_what_a_killed_worker_left_is_freed_at_the_next_start(machines):
    from flows.remote import join

    host = machines.host()
    dead = host.settings.worktrees / "slow-00000000-11111111"
    host.settings.worktrees.mkdir(parents=True)
    subprocess.run(["git", "-C", host.settings.root, "worktree", "add", "--detach", str(dead)], check=True)
    dead.with_suffix(".pid").write_text("1\n")
    scratch = workspace.cache(host.settings) / exchange.SCRATCH
    scratch.mkdir(parents=True)
    (scratch / f"{'0' * 32}.partial").write_text("half")
    left = subprocess.Popen(["sleep", "600"], cwd=dead)
    before = dict(os.environ)
    try:
        join.prepare(host)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert left.wait(5) == -9
    assert machines.left(host) == []


def test_no_variable_and_no_git_configuration_of_a_worker_gets_into_a_stage(machines, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text("import os; os._exit(9)")
    variables = {"PYTHONPATH": str(tmp_path / "own"), "PYTHONSAFEPATH": "1", "PYTHONOPTIMIZE": "x"}
    variables |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "core.autocrlf", "GIT_CONFIG_VALUE_0": "true"}
    attempt = machines.ask("slow")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert machines.make(attempt).outcome.state == "succeeded"  # with other bytes of file.txt it would be refused
