"""A run's models before they are released: put beside production, and judged again by another policy."""

import json

import pytest
import yaml
from click.testing import CliRunner
from sqlalchemy import select

from flows.catalogue import journal, schema
from flows.cli import main
from flows.release import pointers, tags
from flows.release.gates.decision import Decision, approval
from flows.release.of_run import JUDGEMENT
from flows.show import table
from tests.released import POLICY, git

pytestmark = pytest.mark.integration


def remint(*words):
    return CliRunner().invoke(main, words, catch_exceptions=False)


@pytest.fixture
def run(places):
    """The id of the newest run, which is recorded and not released."""
    return max(name for name in tags.read(places.settings.root) if name.startswith("run/")).removeprefix("run/")


def commit_policy(places, policy):
    root = places.settings.root
    (root / "mlflow/promotion.yaml").write_text(yaml.safe_dump(policy))
    git(root, "commit", "-q", "-m", "policy", "--", "mlflow/promotion.yaml")


def test_a_candidate_is_put_beside_production_before_it_is_released(places, run):
    for words in (("production", run), (run,)):
        done = remint("diff", "images", *words, "--json")
        assert done.exit_code == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["before"]["number"], found["after"]["number"]) == (1, None)
        assert found["after"]["run"] == run
        changed = {one["model"]: one for one in found["members"]}
        assert changed["tokenizer"]["before"]["weights"] != changed["tokenizer"]["after"]["weights"]
        assert [(n["metric"], n["before"], n["after"]) for n in changed["maskgit"]["numbers"]] == [("gfwd", 0.2, 0.2)]
    assert pointers.newest(places.bucket, "images").number == 1


def test_a_candidates_page_names_the_run_where_a_release_has_its_number(places, run, tmp_path):
    page = tmp_path / "diff.html"
    done = remint("diff", "images", "production", run, "--html", str(page))
    assert done.exit_code == 0, done.stderr
    text = page.read_text()
    assert "<title>images: #1 and candidate</title>" in text
    assert f"run {run}" in text
    assert "a candidate for images" in text
    assert "#None" not in text


def test_a_run_that_does_not_exist_is_named_with_those_that_do(places, run):
    done = remint("diff", "images", "production", run + "x")
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"no run '{run}x'; did you mean '{run}'?" in done.stderr


def test_a_changed_policy_is_judged_by_when_somebody_says_so_and_that_is_recorded(places, run):
    commit_policy(places, POLICY | {"maskgit": {"thresholds": {"gfwd": 0.1}}})
    done = remint("judge", run)
    assert done.exit_code == 1
    assert "maskgit v2 refused: gfwd <= 0.1 failed: 0.2" in done.stdout
    assert "gfwd <= 0.1" in remint("gates", "maskgit", "v2").stdout
    commit_policy(places, POLICY)
    done = remint("judge", run, "--json")
    assert {one["verdict"] for one in json.loads(done.stdout)["models"] if one["model"] == "maskgit"} == {"passed"}
    with places.catalogue.read() as session:
        assert journal.verify(session) == []
        entries = session.scalars(select(schema.Entry).where(schema.Entry.kind == JUDGEMENT)).all()
    head = git(places.settings.root, "rev-parse", "HEAD")
    assert [entry.subject for entry in entries] == [run, run]
    said = json.loads(entries[-1].body)
    assert (said["commit"], said["policy"], said["verdicts"]["maskgit@v2"]) == (head, "mlflow/promotion.yaml", "passed")
    assert pointers.newest(places.bucket, "images").number == 1


def test_what_the_present_policy_lets_pass_is_promoted_though_its_own_commit_would_not_have(places, run):
    commit_policy(places, POLICY | {"maskgit": {"thresholds": {"gfwd": 0.1}}})
    assert remint("promote", "images", run).exit_code == 1
    commit_policy(places, POLICY)
    done = remint("judge", run)
    assert f"next: remint promote images {run}" in done.stderr
    assert remint("promote", "images", run).exit_code == 0


def test_whoever_is_to_approve_is_told_how_to_look_first(places, run):
    commit_policy(places, POLICY | {"maskgit": {"approval": "required"}})
    look = f"remint diff images production {run} --html diff.html"
    approve = 'remint approve maskgit v2 --why "..."'
    for done in (remint("judge", run), remint("gates", "maskgit", "v2"), remint("status")):
        said = " ".join((done.stdout + done.stderr).split())
        assert look in said
        assert approve in said


def test_there_is_nothing_to_look_at_beside_a_first_release():
    first = Decision("maskgit", 1, False, "waits for approval", (approval(False),), None, "w", "images")
    assert table.next_steps([first], "r1") == ['then: remint approve maskgit v1 --why "..."']
