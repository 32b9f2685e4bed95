"""What a run of the flow adds to its report."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.catalogue.registered import Registered
from flows.pipeline.families import Model
from flows.pipeline.graph import Stage
from flows.pipeline.run import RunInfo, StageResult
from flows.release.gates.compare import InProduction, numbers
from flows.release.gates.decision import Decision, Rule
from flows.release.outcome import Release
from flows.release.pointers import Member, Pointer
from flows.release.promote import FamilyOutcome
from flows.retrain import report
from flows.retrain.report import facts_of
from models.report.facts import Compared, RunFacts

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
STAGES = (Stage("scenes", "true"), Stage("tokenizer", "true", upstream=("scenes",)))
MODEL = Model("maskgit", Path("m"), "", "generator@maskgit", "images", "generator", "maskgit", bound_to="tokenizer")
METRICS = {"gfwd": 9.0, "class_agreement": 74.0, "class_agreement_glass": 60.0}


RULES = (
    Rule("required: gfwd", True, 9.0, "a number"),
    Rule("gfwd <= 10", True, 9.0, 10.0),
    Rule("recall >= production - 0.05", False, 0.5, 0.55, 0.6),
    Rule("class_agreement >= production - 15", True, 74.0, 60.0, 75.0, -1.0, -4.0, 2.0, 240, "paired"),
    Rule("bytes of weights <= 10,000,000", True, 3804640, 10000000),
)


def made(
    workspace: Path,
    before: dict[str, InProduction] | None = None,
    outcomes: tuple[FamilyOutcome, ...] = (),
    decisions: tuple[Decision, ...] = (Decision("maskgit", 2, True, "replaces v1", RULES, 1, family="images"),),
) -> RunFacts:
    run = RunInfo("r1", "run/r1", "c" * 40, "b" * 40, workspace, False, "p", STARTED, "retrain")
    results = (StageResult("scenes", "current", 0.0), StageResult("tokenizer", "ran", 3.0, {"teacher.delta1": 0.8}))
    one = Registered(
        MODEL, 2, "w" * 64, {"tokenizer": "t" * 64}, METRICS, "id", tags={"data.scenes": "d", "stage": "x"}
    )
    tokenizer = replace(one, model=replace(MODEL, name="tokenizer", bound_to=None), version=1)
    compared = {name: numbers(now.metrics, METRICS, margins={"gfwd": 0.2}) for name, now in (before or {}).items()}
    release = Release((tokenizer, one), before=before or {}, compared=compared, decisions=decisions, outcomes=outcomes)
    return facts_of(run, STAGES, results, release, STARTED + timedelta(seconds=90))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    return tmp_path


def test_a_model_is_compared_with_what_production_held_before(workspace: Path) -> None:
    verdict = made(workspace, {"maskgit": InProduction(1, "v" * 64, {}, {"gfwd": 9.5})}).verdicts[0]
    assert verdict.replaces == 1
    assert verdict.compared == (Compared("gfwd", 9.0, 9.5, "better"), Compared("class_agreement", 74.0, None))


def test_a_first_release_has_nothing_to_be_compared_with(workspace: Path) -> None:
    verdict = made(workspace).verdicts[0]
    assert verdict.replaces is None
    assert verdict.compared[0].production is None


def test_what_became_of_the_family_counts_not_what_the_gates_let_pass(workspace: Path) -> None:
    facts = made(workspace, outcomes=(FamilyOutcome("images", "lost", "somebody else was first"),))
    assert (facts.verdicts[0].state, facts.verdicts[0].produces) == ("not released", False)
    assert facts.releases == ("images: somebody else was first",)


def test_what_stays_in_production_is_called_that_and_not_by_the_refusal_of_another(workspace: Path) -> None:
    members = tuple(Member(name, 1, "a" * 64, "", "b" * 64) for name in ("maskgit", "tokenizer"))
    stands = Pointer("images", 1, members, "r0", "c" * 40, "Ada", "", "2026-01-01", "")
    decisions = (
        Decision("tokenizer", 1, False, "v1 is in production already", family="images", unchanged=True),
        Decision("maskgit", 2, False, "recall failed", RULES, 1, family="images"),
    )
    reason = "not released: maskgit v2: recall failed"
    facts = made(workspace, outcomes=(FamilyOutcome("images", "refused", reason, stands),), decisions=decisions)
    told = [(one.model, one.state, one.produces, one.reason) for one in facts.verdicts]
    assert told == [
        ("tokenizer", "in production", True, "v1 is in production already"),
        ("maskgit", "refused", False, ""),
    ]
    assert facts.releases == ("images: not released, for maskgit v2 is refused; images #1 stays in production",)


def test_a_rule_shows_its_limit_where_its_name_does_not_and_its_difference_with_interval(workspace: Path) -> None:
    assert [(rule.candidate, rule.limit) for rule in made(workspace).verdicts[0].rules] == [
        (9.0, None),
        (9.0, None),
        (0.5, 0.55),
        ("74, -1 [-4, +2] over 240 samples (paired)", None),
        ("3,804,640", None),
    ]


def test_the_graph_is_the_one_that_ran(workspace: Path) -> None:
    facts = made(workspace)
    assert facts.graph.edges == (("scenes", "tokenizer"),)
    assert [(row.name, row.action, row.headline) for row in facts.stages] == [
        ("scenes", "current", ""),
        ("tokenizer", "ran", "teacher delta1 0.800"),
    ]


def test_lineage_names_commit_lock_parents_and_data(workspace: Path) -> None:
    facts = made(workspace)
    assert len(facts.lock_digest) == 64
    assert facts.seconds == 90
    assert facts.versions[0].parents == (("tokenizer", "t" * 64),)
    assert facts.versions[0].data == (("scenes", "d"),)


def test_a_run_without_a_lock_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="recorded nothing yet"):
        made(tmp_path)


def test_the_data_docs_are_kept_beside_the_report_for_the_worktree_goes_with_the_run(workspace: Path) -> None:
    docs = workspace / "artifacts" / "validate" / "docs"
    docs.mkdir(parents=True)
    (docs / "index.html").write_text("every expectation")
    run = RunInfo("r1", "run/r1", "c", "b", workspace, False, "p", STARTED, "retrain")
    folder = workspace / "runs" / "r1"
    link = report.keep_docs(run, folder)
    shutil.rmtree(docs)
    assert (folder / link).read_text() == "every expectation"
    assert report.keep_docs(run, workspace / "runs" / "r2") == ""
