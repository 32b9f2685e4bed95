"""What a run of the flow adds to its report."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data.params import UserError
from flows.families import Model
from flows.gates.judge import Decision, InProduction, Rule
from flows.graph import Stage
from flows.registry import Registered
from flows.release.promote import Outcome
from flows.report import facts_of
from flows.run import RunInfo, StageResult
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
    workspace: Path, before: dict[str, InProduction] | None = None, outcomes: tuple[Outcome, ...] = ()
) -> RunFacts:
    run = RunInfo("r1", "run/r1", "c" * 40, "b" * 40, workspace, False, "p", STARTED, "retrain")
    results = (StageResult("scenes", "current", 0.0), StageResult("tokenizer", "ran", 3.0, {"teacher.delta1": 0.8}))
    one = Registered(
        MODEL, 2, "w" * 64, {"tokenizer": "t" * 64}, METRICS, "id", tags={"data.scenes": "d", "stage": "x"}
    )
    decision = Decision("maskgit", 2, True, "replaces v1", RULES, 1, family="images")
    return facts_of(run, STAGES, results, [decision], [one], before or {}, outcomes, STARTED + timedelta(seconds=90))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "dvc.lock").write_text("schema: '2.0'\n")
    return tmp_path


def test_a_model_is_compared_with_what_production_held_before(workspace: Path) -> None:
    verdict = made(workspace, {"maskgit": InProduction(1, "v" * 64, {}, {"gfwd": 9.5})}).verdicts[0]
    assert verdict.replaces == 1
    assert verdict.compared == (Compared("gfwd", 9.0, 9.5), Compared("class_agreement", 74.0, None))


def test_a_first_release_has_nothing_to_be_compared_with(workspace: Path) -> None:
    verdict = made(workspace).verdicts[0]
    assert verdict.replaces is None
    assert verdict.compared[0].production is None
    assert verdict.promoted


def test_what_became_of_the_family_counts_not_what_the_gates_let_pass(workspace: Path) -> None:
    verdict = made(workspace, outcomes=(Outcome("images", "lost", "somebody else was first"),)).verdicts[0]
    assert not verdict.promoted
    assert verdict.reason == "images: somebody else was first"


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
