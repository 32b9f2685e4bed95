"""What a worker does not run: commits that nobody allowed, other packages, another class of machine. The words help."""

import subprocess
from dataclasses import replace

import pytest

from data.core.params import UserError
from flows.pipeline import environment
from flows.remote import refuse
from flows.remote.ledger import Work
from flows.remote.refuse import Refused

pytestmark = pytest.mark.integration

ALLOWED = "main,remint/*,run/*"


def git(root, *words):
    return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def pair(tmp_path):
    """(a clone that a person works in, a worker's clone) of one bare origin with two commits on main."""
    origin, person, worker = (tmp_path / name for name in ("origin.git", "person", "worker"))
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    git(tmp_path, "clone", "--quiet", str(origin), str(person))
    commit(person, "one")
    git(person, "push", "--quiet", "origin", "HEAD:main")
    git(tmp_path, "clone", "--quiet", str(origin), str(worker))
    commit(person, "two")
    git(person, "push", "--quiet", "origin", "HEAD:main")
    return person, worker


def commit(root, text):
    (root / "file").write_text(text)
    git(root, "add", "file")
    git(root, "commit", "--quiet", "--message", text)
    return git(root, "rev-parse", "HEAD")


def has(root, oid):
    return subprocess.run(["git", "-C", root, "cat-file", "-e", oid], capture_output=True, check=False).returncode == 0


def test_the_tip_of_an_allowed_branch_and_what_is_behind_it_are_fetched(pair):
    person, worker = pair
    for wanted in (git(person, "rev-parse", "HEAD"), git(person, "rev-parse", "HEAD~1")):
        refuse.commit(worker, wanted, ALLOWED)
        assert has(worker, wanted)


def test_the_branch_of_a_run_is_fetched_alone(pair):
    person, worker = pair
    wanted = commit(person, "parameters of the run")
    git(person, "push", "--quiet", "origin", "HEAD:refs/heads/remint/20261121T100000Z-1a2b3c4")
    git(person, "checkout", "--quiet", "--orphan", "elsewhere")
    other = commit(person, "of another branch")
    git(person, "push", "--quiet", "origin", "HEAD:refs/heads/remint/other")
    refuse.commit(worker, wanted, ALLOWED)
    assert has(worker, wanted)
    assert not has(worker, other)


def test_an_annotated_tag_is_as_good_as_a_branch(pair):
    person, worker = pair
    git(person, "checkout", "--quiet", "--detach")
    wanted = commit(person, "results")
    later = commit(person, "on top")
    git(person, "tag", "--annotate", "--message", "Run", "run/1")
    git(person, "push", "--quiet", "origin", "run/1")
    refuse.commit(worker, later, ALLOWED)
    refuse.commit(worker, wanted, ALLOWED)


def test_a_commit_that_no_allowed_branch_reaches_is_refused(pair):
    person, worker = pair
    wanted = commit(person, "not reviewed")
    git(person, "push", "--quiet", "origin", "HEAD:feature")
    with pytest.raises(Refused, match=f"commit {wanted[:10]} is not in origin, .* REMINT_ALLOWED"):
        refuse.commit(worker, wanted, ALLOWED)
    git(worker, "fetch", "--quiet", "origin", "feature")  # that it is here does not help it
    with pytest.raises(Refused, match="is not reachable from a branch or tag of origin .* merge it"):
        refuse.commit(worker, wanted, ALLOWED)
    refuse.commit(worker, wanted, "main,feature")


def test_what_origin_has_taken_back_is_no_longer_allowed(pair):
    person, worker = pair
    wanted = commit(person, "a run")
    git(person, "push", "--quiet", "origin", "HEAD:remint/a")
    refuse.commit(worker, wanted, ALLOWED)
    git(person, "push", "--quiet", "origin", ":remint/a")
    with pytest.raises(Refused, match="is not reachable"):
        refuse.commit(worker, wanted, ALLOWED)


def test_a_commit_that_nobody_knows_is_refused(pair):
    with pytest.raises(Refused, match="push it there"):
        refuse.commit(pair[1], "c" * 40, ALLOWED)


@pytest.mark.parametrize("wanted", ["HEAD", "--upload-pack=touch x", "abc", "main; touch x", "a" * 39 + "G"])
def test_what_is_no_commit_never_reaches_git(pair, wanted):
    with pytest.raises(Refused, match="is not a commit"):
        refuse.commit(pair[1], wanted, ALLOWED)


def test_an_origin_that_does_not_answer_is_no_refusal(pair):
    _, worker = pair
    git(worker, "remote", "set-url", "origin", str(worker.parent / "gone"))
    with pytest.raises(UserError, match="git ls-remote failed"):
        refuse.commit(worker, "c" * 40, ALLOWED)


WORK = Work("train", "k" * 64, "c" * 40, {}, "run", "cpu")


def test_a_stage_must_be_one_of_the_graph():
    refuse.stage(WORK, ["train", "test"])
    with pytest.raises(Refused, match=r"has no stage 'trian'; did you mean 'train'\?"):
        refuse.stage(replace(WORK, stage="trian"), ["train"])
    with pytest.raises(Refused, match="has no stage"):
        refuse.stage(replace(WORK, stage="../../train"), ["train"])


def test_other_packages_are_refused_by_name(tmp_path):
    here = environment.describe(tmp_path)
    refuse.environment(WORK, here)
    with pytest.raises(Refused, match="not those of requirements.lock: torch 2.1, locked 2.13; pip install"):
        refuse.environment(WORK, replace(here, unlocked={"torch": "2.1, locked 2.13"}))
    with pytest.raises(Refused, match="another requirements.lock"):
        refuse.environment(replace(WORK, environment={"lock": "d" * 64}), here)


def test_another_class_of_machine_is_refused_where_the_run_names_one(tmp_path):
    here = environment.describe(tmp_path)
    refuse.environment(replace(WORK, environment={"machine": here.machine}), here)
    with pytest.raises(Refused, match=f"of class '{here.machine}', the run allows 'x86_64 GenuineIntel avx512 NVIDIA"):
        refuse.environment(replace(WORK, environment={"machine": "x86_64 GenuineIntel avx512 NVIDIA H200"}), here)


def test_a_stage_for_which_somebody_sets_job_variables_is_refused_before_its_attempt_is_looked_at(tmp_path):
    import threading
    from types import SimpleNamespace

    from flows.remote.roster import Entry
    from flows.remote.worker import StageWorker
    from flows.settings import Settings

    host = SimpleNamespace(settings=Settings(root=tmp_path))
    worker = SimpleNamespace(host=host, entry=Entry("w", "cpu"), name="w", place="none", leave=threading.Event())
    asked = SimpleNamespace(name="proxy run", job_variables={"env": {"PYTHONSTARTUP": "mine.py"}})
    ended = StageWorker._attempt(worker, asked, lambda text, whole: None)
    assert ended.outcome.state == "refused"
    assert ended.outcome.why.startswith("the flow run sets job variables (env), and workers let nobody set any")
