"""The gates on a whole run: production fetched from its bucket, measured as the candidate was, judged, stored."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from data.core.params import UserError
from flows.catalogue import journal
from flows.catalogue.schema import Decision as Row
from flows.cli import main
from flows.release.gates import record
from flows.release.gates.evaluation import context
from flows.release.gates.judge import SAME
from tests.integration.gates_world import POLICY, World, git

pytestmark = pytest.mark.integration


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


@pytest.fixture
def released(world: World) -> World:
    """Run 1 is in production."""
    run, registered = world.train(1, 0.0)
    world.release(run, registered)
    return world


def rule(decision, beginning):
    (found,) = [rule for rule in decision.rules if rule.name.startswith(beginning)]
    return found


def remint(world: World, monkeypatch, *words: str):
    monkeypatch.chdir(world.root)
    return CliRunner().invoke(main, list(words))


def test_a_first_release_asks_production_nothing(world):
    decisions = world.decide(*world.train(1, 0.0))
    assert [(one.verdict, one.reason) for one in decisions.values()] == [("passed", "first release")] * 2
    assert {rule.name for rule in decisions["tokenizer"].rules} == {
        "required: psnr",
        "data passed validation",
        "bytes of weights <= 10,000",
        "carries maskgit",
    }  # and no comparison


def test_under_one_context_the_stored_samples_are_compared_and_nothing_is_evaluated(released):
    decisions = released.decide(*released.train(2, 0.5))
    assert {one.verdict for one in decisions.values()} == {"passed"}
    assert released.evaluated() == []
    found = rule(decisions["tokenizer"], "psnr >= production - 0.2")
    assert found.samples == 200
    assert found.low < found.difference < found.high
    assert found.difference == pytest.approx(0.5, abs=0.15)
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5 * (2 / 200) ** 0.5, rel=0.2)  # paired: not 3 dB


def test_a_worse_model_is_refused_and_takes_its_generator_with_it(released):
    decisions = released.decide(*released.train(2, -0.5))
    assert decisions["tokenizer"].verdict == decisions["maskgit"].verdict == "refused"
    assert decisions["tokenizer"].reason.startswith("psnr >= production - 0.2 failed: ")
    assert "released with tokenizer failed" in decisions["maskgit"].reason


def test_what_is_in_production_already_is_not_decided_about(released):
    run, registered = released.train(2, 0.5)
    released.release(run, registered)
    assert {one.verdict for one in released.decide(run, registered).values()} == {"unchanged"}
    with released.catalogue.read() as session:
        assert session.query(Row).count() == 0


def test_on_new_data_production_is_evaluated_again_once_and_old_numbers_are_not_used(released):
    """The new samples are 5 dB harder: against production's old numbers the better candidate would lose."""
    released.data(seed=2, level=15.0)
    run, registered = released.train(2, 0.5)
    decisions = released.decide(run, registered)
    assert {one.verdict for one in decisions.values()} == {"passed"}
    found = rule(decisions["tokenizer"], "psnr >=")
    assert found.production == pytest.approx(15.0, abs=0.5)
    assert found.difference == pytest.approx(0.5, abs=0.15)
    again = released.evaluated()
    beside = {Path(model).name: tokenizer for model, tokenizer in map(str.split, again)}
    assert beside["tokenizer"] == "None"
    assert Path(beside["maskgit"]).is_relative_to(released.settings.home)  # the tokenizer of production too
    assert Path(beside["maskgit"]).name == "tokenizer"
    assert len(again) == 2
    released.decide(run, registered)
    assert released.evaluated() == again


def test_production_that_cannot_be_evaluated_again_refuses_the_candidate_with_the_reason(world):
    run, registered = world.train(1, 0.0)
    config = world.root / "artifacts/tokenizer/model/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"broken": True}))
    world.release(run, registered)
    world.data(seed=2, level=15.0)
    decisions = world.decide(*world.train(2, 0.5))
    assert rule(decisions["tokenizer"], SAME).note == "production v1: this code cannot load such a model"
    assert decisions["tokenizer"].verdict == "refused"
    assert not [path for path in (world.settings.home / "evaluations").iterdir() if path.name.startswith(".")]


def test_an_evaluation_that_hangs_is_ended_at_the_stages_time_limit(released):
    released.data(seed=2, level=15.0)
    run, registered = released.train(2, 0.5)
    graph = yaml.safe_load((released.root / "dvc.yaml").read_text())
    graph["stages"]["evaluate"]["do"]["meta"]["timeout"] = 0.5
    (released.root / "dvc.yaml").write_text(yaml.safe_dump(graph))
    (released.root / "evaluate.py").write_text("import time; time.sleep(60)")
    decision = released.decide(run, registered)["tokenizer"]
    assert "longer than 0.5 s" in rule(decision, SAME).note


def test_data_that_failed_validation_or_was_not_validated_is_refused(world):
    run, registered = world.train(1, 0.0)
    report = world.root / "artifacts/validate/report.json"
    report.write_text(json.dumps({"success": False, "critical_failed": 2}))
    assert rule(world.decide(run, registered)["tokenizer"], "data passed").candidate == "failed: 2 critical"
    report.unlink()
    assert "no artifacts/validate" in rule(world.decide(run, registered)["tokenizer"], "data passed").candidate
    world.data(seed=9, level=1.0)  # a report, but of other data than dvc.lock says the model saw
    lock = yaml.safe_load((world.root / "dvc.lock").read_text())
    lock["stages"]["validate"]["deps"][0] = {"path": "artifacts/scenes", "md5": "other"}
    (world.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert "not those of the report" in rule(world.decide(run, registered)["tokenizer"], "data passed").candidate


def test_a_generator_of_another_tokenizer_is_refused_with_both_digests(released):
    run, registered = released.train(2, 0.5)
    maskgit, tokenizer = sorted(registered, key=lambda one: one.model.name)
    foreign = replace(maskgit, parents={"tokenizer": "f" * 64})
    decision = released.decide(run, [tokenizer, foreign])["maskgit"]
    assert f"tokenizer {'f' * 12} against tokenizer {tokenizer.weights[:12]}" in decision.reason


def test_the_context_is_of_data_code_and_command_but_not_of_the_models(world):
    _, registered = world.train(1, 0.0)
    model = next(one.model for one in registered if one.model.name == "tokenizer")
    first = context(world.root, model)
    world.train(2, 3.0)
    assert context(world.root, model) == first
    world.data(seed=2, level=20.0)
    world.lock()
    assert context(world.root, model) != first
    (world.root / "dvc.lock").unlink()
    assert context(world.root, model) == ""


def test_a_decision_is_shown_with_both_numbers_interval_and_verdict(released, monkeypatch):
    released.decide(*released.train(2, 0.5))
    shown = remint(released, monkeypatch, "gates", "tokenizer", "2")
    assert shown.exit_code == 0
    assert "tokenizer v2 passed against v1: replaces v1" in shown.stderr
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("psnr >= production - 0.2")]
    found = json.loads(remint(released, monkeypatch, "gates", "tokenizer", "v2", "--json").stdout)
    numbers = next(rule for rule in found["rules"] if rule["name"].startswith("psnr >="))
    assert all(f"{numbers[name]:.4g}" in line for name in ("candidate", "production", "limit"))
    assert f"[{numbers['low']:+.3g}, {numbers['high']:+.3g}]" in line
    assert (found["verdict"], found["against"], found["run"]) == ("passed", 1, "r2")


def test_a_refused_decision_is_shown_with_exit_code_1(released, monkeypatch):
    released.decide(*released.train(2, -0.5))
    shown = remint(released, monkeypatch, "gates", "tokenizer", "v2")
    assert shown.exit_code == 1
    assert "FAILED" in shown.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("gates", "tokeniser", "v1"), "no model 'tokeniser' in the catalogue; did you mean 'tokenizer'?"),
        (("gates", "tokenizer", "v7"), "tokenizer has no version 7 in the catalogue; the newest is v1"),
        (("gates", "tokenizer", "produktion"), "no alias 'produktion'; did you mean 'production'?"),
        (("gates", "tokenizer", "v1"), "tokenizer v1 was never judged"),
        (("approve", "tokenizer", "v1", "--why", "x"), "tokenizer v1 was never judged, so there is nothing to approve"),
        (("approve", "tokenizer", "v1", "--why", " "), "an approval says why"),
        (("approve", "tokeniser", "v1", "--why", "x"), "did you mean 'tokenizer'?"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(world, monkeypatch, words, says):
    world.train(1, 0.0)
    done = remint(world, monkeypatch, *words)
    assert done.exit_code == 2
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_approval_is_waited_for_recorded_and_lets_the_release_pass(released, monkeypatch):
    released.policy(POLICY | {"tokenizer": POLICY["tokenizer"] | {"approval": "required"}})
    run, registered = released.train(2, 0.5)
    assert {one.verdict for one in released.decide(run, registered).values()} == {"waiting"}
    assert remint(released, monkeypatch, "gates", "tokenizer", "v2").exit_code == 1
    unneeded = remint(released, monkeypatch, "approve", "maskgit", "v2", "--why", "x")
    assert "maskgit v2 needs no approval: it waits for approval of tokenizer v2" in unneeded.stderr
    done = remint(released, monkeypatch, "approve", "tokenizer", "v2", "--why", "glass looks right")
    assert (done.exit_code, done.stderr) == (0, "next: remint promote images r2\n")
    assert done.stdout.splitlines() == ["maskgit v2 passed: replaces v1", "tokenizer v2 passed: replaces v1"]
    with released.catalogue.read() as session:
        assert journal.verify(session) == []
        given = record.approvals(session, [("tokenizer", 2)])[
            next(one.weights for one in registered if one.model.name == "tokenizer")
        ]
    assert given.weights in [one.weights for one in registered]
    assert (given.who, given.why) == ("Ada <ada@example.org>", "glass looks right")
    assert "approved by Ada" in remint(released, monkeypatch, "gates", "tokenizer", "v2").stderr
    again = remint(released, monkeypatch, "approve", "tokenizer", "v2", "--why", "twice")
    assert again.exit_code == 2
    assert "tokenizer v2 was approved already: by Ada <ada@example.org> on " in again.stderr
    assert {one.verdict for one in released.decide(run, registered).values()} == {"passed"}


def test_an_approval_is_of_weights_and_not_of_a_name(released):
    released.policy(POLICY | {"tokenizer": {"approval": "required"}, "maskgit": {}})
    run, registered = released.train(2, 0.5)
    released.decide(run, registered)
    record.approve(released.catalogue, "tokenizer", "v2", "Ada <a@b>", "fine")
    assert {one.verdict for one in released.decide(run, registered).values()} == {"passed"}
    other = [replace(one, weights="e" * 64) if one.model.name == "tokenizer" else one for one in registered]
    decision = released.decide(run, other)["tokenizer"]
    assert [rule.passed for rule in decision.rules if rule.name == "approval"] == [False]


def test_what_was_refused_or_needs_none_cannot_be_approved(released):
    released.policy(POLICY | {"tokenizer": POLICY["tokenizer"] | {"approval": "required"}})
    released.decide(*released.train(2, -0.5))
    with pytest.raises(UserError, match="tokenizer v2 was refused, and an approval does not change that: psnr >="):
        record.approve(released.catalogue, "tokenizer", "v2", "Ada <a@b>", "please")
    released.policy(POLICY)
    released.decide(*released.train(3, 0.5))
    with pytest.raises(UserError, match=r"tokenizer v3 needs no approval: its gate asks for none \(passed\)"):
        record.approve(released.catalogue, "tokenizer", "v3", "Ada <a@b>", "please")


def test_an_approval_without_a_name_in_git_is_refused(world, monkeypatch):
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    git(world.root, "config", "--unset", "user.name")
    with pytest.raises(UserError, match="git config --global user.name"):
        record.approver(world.root)


def test_a_number_that_is_none_is_refused_and_can_be_stored_and_shown(world, monkeypatch):
    run, registered = world.train(1, 0.0)
    odd = [replace(one, metrics={"psnr": float("nan")}) for one in registered]
    world.policy({"tokenizer": {"thresholds": {"psnr": 16}}})
    assert world.decide(run, odd)["tokenizer"].verdict == "refused"
    found = json.loads(remint(world, monkeypatch, "gates", "tokenizer", "v1", "--json").stdout)
    assert (found["rules"][0]["candidate"], found["rules"][0]["passed"]) == ("nan", False)
