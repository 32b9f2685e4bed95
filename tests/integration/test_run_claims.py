"""Of several processes that want the same run one runs it; commits and tags go through origin, or it is said why."""

import contextlib
import re
import subprocess
import threading
from dataclasses import replace

import pytest

from data.core.params import UserError
from flows import repository, settings
from flows.pipeline import run
from flows.release import origin
from flows.retrain import job, launch
from flows.schedules import started
from flows.workers import claim, orders
from tests.integration.conftest import Toy

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def template(make_toy, tmp_path_factory):
    root = tmp_path_factory.mktemp("template")
    (root / "project").mkdir()
    toy = make_toy(root / "project")
    toy.git("clone", "--quiet", "--bare", ".", str(root / "origin.git"))
    return root


@pytest.fixture
def toy(template, tmp_path, monkeypatch):
    """A clone of the small project, with its origin, whose runs keep everything in a folder of this test."""
    subprocess.run(["cp", "-r", template / "origin.git", tmp_path / "origin.git"], check=True)
    subprocess.run(["git", "clone", "--quiet", tmp_path / "origin.git", tmp_path / "clone"], check=True)
    monkeypatch.setenv("REMINT_LEDGER", str(tmp_path / "ledger"))
    monkeypatch.setenv("REMINT_REMOTE", str(tmp_path / "remote"))
    monkeypatch.setattr(claim, "BEAT_SECONDS", 0.1)
    return Toy(tmp_path / "clone")


def held(ready, said=None):
    return claim.held(ready, (said if said is not None else []).append)


def elsewhere(ready, host="far"):
    """What the ledger says of a claim that a process of another machine has taken."""
    book = orders.opened(ready.settings)
    with held(ready) as mine:
        order = replace(mine.mine.order, host=host, home="/elsewhere")
    return book.store, book.open(order, 1)


def test_the_second_of_two_runs_leaves_and_says_who_is_at_work(toy):
    with job.prepared(toy.root) as first, job.prepared(toy.root) as second:
        with held(first) as claimed:
            with pytest.raises(claim.UnderWay, match=f"run {first.run.id} of the same commit.* is under way on"):
                launch.bring_up_to_date(second, lambda text: None)
            claimed.check()
        with held(second):
            pass
        assert orders.opened(first.settings).store.list("") == []


def test_other_parameters_or_other_data_are_another_run(toy):
    with job.prepared(toy.root) as first, job.prepared(toy.root, assignments=["right=[3]"]) as second:
        with held(first), held(second):
            pass
        (second.run.workspace / "stage.py").write_text("# changed data of a first stage\n")
        with held(first), held(replace(second, run=replace(second.run, parameters=first.run.parameters))):
            pass


def test_a_claim_of_a_killed_run_of_this_machine_is_taken_over_at_once(toy):
    said = []
    with job.prepared(toy.root) as killed:
        dead = claim.take(killed, said.append)
    with job.prepared(toy.root) as heir, held(heir, said) as claimed:
        assert claimed.dead == (killed.run.id,)
        assert said[-1].endswith("is dead: taking over")
        with pytest.raises(UserError, match="another took it over"):
            dead.check()  # it was only suspended, and ends before its tag or its release


def test_a_claim_of_a_run_that_was_killed_after_its_work_is_cleared_away(toy):
    store = orders.opened(settings.load(toy.root)).store
    with job.prepared(toy.root) as killed:
        claim.take(killed, lambda text: None)
        with job.prepared(toy.root) as other:
            assert claim.clear(other, lambda text: None) == []  # it lives
    with job.prepared(toy.root) as later:
        assert claim.clear(later, lambda text: None) == [killed.run.id]
        assert claim.clear(later, lambda text: None) == []
    assert store.list("") == []


def test_a_claim_of_another_machine_is_watched_for_a_sign_of_life(toy, monkeypatch):
    monkeypatch.setattr(claim, "SILENT_SECONDS", 3.0)
    with job.prepared(toy.root) as ready:
        store, other = elsewhere(ready)
        ended = threading.Event()
        beat = f"{other.place}/beat.json"
        far = threading.Thread(
            target=lambda: [store.replace(beat, b"%d" % n) for n in range(1000) if not ended.wait(0.1)]
        )
        far.start()
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: (ended.set(), far.join()))
            with pytest.raises(claim.UnderWay, match="on far"), held(ready):
                pass
        with held(ready) as claimed:  # it beats no more
            assert claimed.dead == (ready.run.id,)


def test_who_waited_for_a_run_that_ended_has_nothing_left_to_do(toy):
    with job.prepared(toy.root) as late:
        identifier = f"29990101T000000Z-{late.run.base_commit[:7]}"
        subprocess.run(["dvc", "repro", "--quiet"], cwd=toy.root, check=True)
        recorded = repository.commit(toy.root, f"{run.RECORDED} {identifier}", ["dvc.lock"])
        repository.tag(toy.root, run.run_tag(identifier), "x", recorded)
        assert not late.plan.empty
        assert launch.bring_up_to_date(late, lambda text: None) is None


def test_a_forged_run_changes_no_plan(toy):
    with job.prepared(toy.root):  # which makes this environment that of a run
        subprocess.run(["dvc", "repro", "--quiet"], cwd=toy.root, check=True)
    repository.commit(toy.root, "Record", ["dvc.lock"])
    with job.prepared(toy.root) as ready:
        assert (ready.newest, ready.plan.empty) == (None, True)
    lock = toy.root / "dvc.lock"
    one, other = re.findall(r"path: artifacts/right/[ab]\n +hash: md5\n +md5: (\S+)", lock.read_text())
    lock.write_text(lock.read_text().replace(one, other))  # an object that the cache has
    identifier = f"29990101T000000Z-{toy.git('rev-parse', 'HEAD')[:7]}"
    forged = repository.commit(toy.root, f"{run.RECORDED} {identifier}", ["dvc.lock"])
    repository.tag(toy.root, run.run_tag(identifier), "Run", forged)
    toy.git("reset", "--quiet", "--hard", "HEAD^")
    with job.prepared(toy.root) as ready:
        assert (ready.newest, ready.plan.empty) == (None, True)
        assert one in (ready.run.workspace / "dvc.lock").read_text()


def test_a_commit_is_offered_and_withdrawn_and_tags_are_published(toy, tmp_path):
    bare = tmp_path / "origin.git"
    refs = lambda: repository.git(bare, "for-each-ref", "--format=%(refname:strip=2)").split()  # noqa: E731
    head = toy.git("rev-parse", "HEAD")
    origin.offer(toy.root, "r1", head)
    assert "remint/r1" in refs()
    ours = {"run/20260101T000000Z-1a2b3c4", "tokenizer@v1.0.0", "tokenizer#production#1"}
    for name in sorted({*ours, "run/latest"}):
        repository.tag(toy.root, name, name, head)
    repository.commit(toy.root, "Later", ["dvc.yaml"], allow_empty=True)
    repository.tag(toy.root, "private", "somebody's own", "HEAD")
    origin.publish(toy.root, head)
    origin.withdraw(toy.root, "r1")
    origin.withdraw(toy.root, "r1")
    assert ours <= set(refs())
    assert not {"private", "run/latest", "remint/r1"} & set(refs())
    subprocess.run(["git", "clone", "--quiet", "--no-tags", bare, tmp_path / "third"], check=True)
    origin.fetch_tags(tmp_path / "third")
    assert ours <= set(repository.git(tmp_path / "third", "tag").split())


def test_without_an_origin_or_the_right_to_push_a_run_on_workers_says_so(toy, tmp_path):
    hook = tmp_path / "origin.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(UserError, match="the commit of the run cannot be pushed.*ask for the right to push"):
        origin.offer(toy.root, "r1", "HEAD")
    toy.git("remote", "remove", "origin")
    done = toy.remint("retrain", "--stages", "workers")
    assert done.returncode == 2
    assert "has no remote 'origin'" in done.stderr


def test_a_run_on_workers_names_the_variable_without_which_it_cannot_be(toy):
    done = toy.remint("retrain", REMINT_STAGES="workers")
    assert (done.returncode, "needs REMINT_PREFECT_API" in done.stderr) == (2, True), done.stderr
    done = toy.remint("retrain", REMINT_STAGES="workers", REMINT_PREFECT_API="http://127.0.0.1:1/api")
    assert (done.returncode, "no Prefect server answers there" in done.stderr) == (2, True), done.stderr


def test_a_schedule_follows_a_branch_of_origin_and_leaves_the_clone_as_it_is(toy, tmp_path, monkeypatch):
    subprocess.run(["git", "clone", "--quiet", tmp_path / "origin.git", tmp_path / "colleague"], check=True)
    colleague = Toy(tmp_path / "colleague")
    (colleague.root / "params.yaml").write_text((toy.root / "params.yaml").read_text().replace("base: 1", "base: 9"))
    colleague.git("commit", "--quiet", "--all", "--message", "Better")
    colleague.git("push", "--quiet", "origin", "HEAD:nightly/best")
    (toy.root / "params.yaml").write_text("not: committed\n")
    before = toy.git("rev-parse", "HEAD")
    asked = []

    def bring_up_to_date(ready, say):
        asked.append((ready.run.base_commit, ready.run.dirty, (ready.run.workspace / "params.yaml").read_text()[:7]))

    monkeypatch.setattr(launch, "bring_up_to_date", bring_up_to_date)
    for branch in ("", "nightly/best"):
        monkeypatch.setenv("REMINT_BRANCH", branch)
        started.retrain(settings.load(toy.root), "schedule", print)
    assert asked == [(before, True, "base: 1"), (colleague.git("rev-parse", "HEAD"), False, "base: 9")]
    assert toy.git("rev-parse", "HEAD") == before
    monkeypatch.setenv("REMINT_BRANCH", "nightly/worst")
    monkeypatch.setattr(origin, "RETRY_SECONDS", 0.0)
    with pytest.raises(UserError, match="REMINT_BRANCH=nightly/worst cannot be fetched from origin: .*couldn't find"):
        started.retrain(settings.load(toy.root), "schedule", print)
