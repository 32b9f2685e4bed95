"""What a worker does not run: commits that nobody allowed, other packages, another class of machine. The words help."""

import subprocess
from dataclasses import replace

import pytest

from data.core.params import UserError
from flows.pipeline import environment
from flows.workers import admission
from flows.workers.admission import Rejected
from flows.workers.orders import Order

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
        admission.commit(worker, wanted, ALLOWED)
        assert has(worker, wanted)


def test_the_branch_of_a_run_is_fetched_alone(pair):
    person, worker = pair
    wanted = commit(person, "parameters of the run")
    git(person, "push", "--quiet", "origin", "HEAD:refs/heads/remint/20261121T100000Z-1a2b3c4")
    git(person, "checkout", "--quiet", "--orphan", "elsewhere")
    other = commit(person, "of another branch")
    git(person, "push", "--quiet", "origin", "HEAD:refs/heads/remint/other")
    admission.commit(worker, wanted, ALLOWED)
    assert has(worker, wanted)
    assert not has(worker, other)


def test_an_annotated_tag_is_as_good_as_a_branch(pair):
    person, worker = pair
    git(person, "checkout", "--quiet", "--detach")
    wanted = commit(person, "results")
    later = commit(person, "on top")
    git(person, "tag", "--annotate", "--message", "Run", "run/1")
    git(person, "push", "--quiet", "origin", "run/1")
    admission.commit(worker, later, ALLOWED)
    admission.commit(worker, wanted, ALLOWED)


def test_a_commit_that_no_allowed_branch_reaches_is_refused(pair):
    person, worker = pair
    wanted = commit(person, "not reviewed")
    git(person, "push", "--quiet", "origin", "HEAD:feature")
    with pytest.raises(Rejected, match=f"commit {wanted[:10]} is not in origin, .* REMINT_ALLOWED"):
        admission.commit(worker, wanted, ALLOWED)
    git(worker, "fetch", "--quiet", "origin", "feature")  # that it is here does not help it
    with pytest.raises(Rejected, match="is not reachable from a branch or tag of origin .* merge it"):
        admission.commit(worker, wanted, ALLOWED)
    admission.commit(worker, wanted, "main,feature")


def test_what_origin_has_taken_back_is_no_longer_allowed(pair):
    person, worker = pair
    wanted = commit(person, "a run")
    git(person, "push", "--quiet", "origin", "HEAD:remint/a")
    admission.commit(worker, wanted, ALLOWED)
    git(person, "push", "--quiet", "origin", ":remint/a")
    with pytest.raises(Rejected, match="is not reachable"):
        admission.commit(worker, wanted, ALLOWED)


def test_a_commit_that_nobody_knows_is_refused(pair):
    with pytest.raises(Rejected, match="push it there"):
        admission.commit(pair[1], "c" * 40, ALLOWED)


@pytest.mark.parametrize("wanted", ["HEAD", "--upload-pack=touch x", "abc", "main; touch x", "a" * 39 + "G"])
def test_what_is_no_commit_never_reaches_git(pair, wanted):
    with pytest.raises(Rejected, match="is not a commit"):
        admission.commit(pair[1], wanted, ALLOWED)


def test_an_origin_that_does_not_answer_is_no_refusal(pair):
    _, worker = pair
    git(worker, "remote", "set-url", "origin", str(worker.parent / "gone"))
    with pytest.raises(UserError, match="git ls-remote failed"):
        admission.commit(worker, "c" * 40, ALLOWED)


ORDER = Order("train", "k" * 64, "c" * 40, {}, "run", "cpu")


def test_a_stage_must_be_one_of_the_graph():
    admission.stage(ORDER, ["train", "test"])
    with pytest.raises(Rejected, match=r"has no stage 'trian'; did you mean 'train'\?"):
        admission.stage(replace(ORDER, stage="trian"), ["train"])
    with pytest.raises(Rejected, match="has no stage"):
        admission.stage(replace(ORDER, stage="../../train"), ["train"])


def test_other_packages_are_refused_by_name(tmp_path):
    here = environment.describe(tmp_path)
    admission.environment(ORDER, here)
    with pytest.raises(Rejected, match="not those of requirements.lock: torch 2.1, locked 2.13; pip install"):
        admission.environment(ORDER, replace(here, unlocked={"torch": "2.1, locked 2.13"}))
    with pytest.raises(Rejected, match="another requirements.lock"):
        admission.environment(replace(ORDER, environment={"lock": "d" * 64}), here)


def test_another_class_of_machine_is_refused_where_the_run_names_one(tmp_path):
    here = environment.describe(tmp_path)
    admission.environment(replace(ORDER, environment={"machine": here.machine}), here)
    with pytest.raises(Rejected, match=f"of class '{here.machine}', the run allows 'x86_64 GenuineIntel avx512 NVIDIA"):
        admission.environment(replace(ORDER, environment={"machine": "x86_64 GenuineIntel avx512 NVIDIA H200"}), here)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"part": "4/x"}, "'4/x' is not a part"),
        ({"proof": "../../x"}, "is not the name of a reproduction"),
        ({"variables": {"LD_PRELOAD": "x.so"}}, "variable 'LD_PRELOAD' is not to be set"),
        ({"variables": {"OMP_NUM_THREADS": "1; touch x"}}, "or not to this value"),
    ],
)
def test_what_an_order_may_hold(changes, words):
    admission.order(ORDER)
    with pytest.raises(Rejected, match=words):
        admission.order(replace(ORDER, **changes))
