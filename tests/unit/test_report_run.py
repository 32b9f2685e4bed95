"""What a run of the flow adds to its report."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data.params import UserError
from flows.families import Model
from flows.gates.judge import Decision, InProduction, Rule
from flows.graph import Stage
from flows.registry import Registered
from flows.report import facts_of
from flows.run import RunInfo, StageResult
from models.report.facts import Compared, RunFacts

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
STAGES = (Stage("scenes", "true"), Stage("tokenizer", "true", upstream=("scenes",)))
MODEL = Model("maskgit", Path("m"), "", "generator@maskgit", "images", "generator", "maskgit", bound_to="tokenizer")
METRICS = {"gfwd": 9.0, "class_agreement": 74.0, "class_agreement_glass": 60.0}


def made(workspace: Path, before: dict[str, InProduction] | None = None) -> RunFacts:
    run = RunInfo("r1", "run/r1", "c" * 40, "b" * 40, workspace, False, "p", STARTED, "retrain")
    results = (StageResult("scenes", "current", 0.0), StageResult("tokenizer", "ran", 3.0, {"teacher.delta1": 0.8}))
    one = Registered(
        MODEL, 2, "w" * 64, {"tokenizer": "t" * 64}, METRICS, "id", tags={"data.scenes": "d", "stage": "x"}
    )
    rules = (Rule("required: gfwd", True, 9.0, "a number"), Rule("gfwd <= 10", True, 9.0, 10.0))
    decision = Decision("maskgit", 2, True, "replaces v1", rules, 1)
    return facts_of(run, STAGES, results, [decision], [one], before or {}, STARTED + timedelta(seconds=90))


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


def test_rules_show_both_numbers_where_there_are_two(workspace: Path) -> None:
    assert [(rule.candidate, rule.limit) for rule in made(workspace).verdicts[0].rules] == [(9.0, None), (9.0, 10.0)]


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
