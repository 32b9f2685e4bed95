"""Promotion: which rule lets a version into production, and which models move together."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from data.params import UserError
from flows.families import Model
from flows.promotion import Gate, InProduction, judge, read_policy
from flows.registry import Registered

ROOT = Path(__file__).parents[2]
MODELS = ["tokenizer", "maskgit", "depth-teacher", "depth-small"]
BOUND = {"maskgit": "tokenizer"}
GATES = {
    "tokenizer": Gate(("psnr",), {"psnr": 16}, {"psnr": -0.2}),
    "maskgit": Gate(("gfwd",), {"gfwd": 50}, {"gfwd": 0}),
}


def candidate(name: str, weights: str, parents=None, **metrics: float) -> Registered:
    model = Model(name, Path("artifacts") / name / "model", "", name, "depth", name)
    return Registered(model, 2, weights, parents or {}, metrics, "run")


def standing(weights: str, parents=None, **metrics: float) -> InProduction:
    return InProduction(1, weights, parents or {}, metrics)


TOKENIZER = candidate("tokenizer", "t2", psnr=21.0)
MASKGIT = candidate("maskgit", "g2", {"tokenizer": "t2"}, gfwd=10.0)
OLD = {"tokenizer": standing("t1", psnr=21.1), "maskgit": standing("g1", {"tokenizer": "t1"}, gfwd=12.0)}


def test_a_first_version_that_reaches_the_thresholds_is_released():
    decisions = judge([TOKENIZER, MASKGIT], GATES, {}, BOUND)
    assert [(d.promoted, d.reason, d.replaces) for d in decisions] == [(True, "first release", None)] * 2


def test_a_better_pair_replaces_production():
    decisions = judge([TOKENIZER, MASKGIT], GATES, OLD, BOUND)
    assert [(d.promoted, d.reason, d.replaces) for d in decisions] == [(True, "replaces v1", 1)] * 2


def test_a_threshold_refuses_even_a_first_version_and_says_both_numbers():
    (decision,) = judge([candidate("tokenizer", "t2", psnr=14.2)], GATES, {}, {})
    assert not decision.promoted
    assert decision.reason == "psnr >= 16 failed: 14.2"
    assert [(r.candidate, r.limit) for r in decision.failed] == [(14.2, 16)]


def test_a_version_worse_than_production_by_more_than_the_margin_is_refused():
    (decision,) = judge([candidate("tokenizer", "t2", psnr=20.8)], GATES, {"tokenizer": OLD["tokenizer"]}, {})
    assert decision.reason == "psnr >= production - 0.2 failed: 20.8 against 21.1 in production"


def test_a_metric_that_should_be_low_is_compared_the_other_way_round():
    worse, better = candidate("maskgit", "g2", gfwd=12.1), candidate("maskgit", "g2", gfwd=11.9)
    now = {"maskgit": OLD["maskgit"]}
    assert not judge([worse], GATES, now, {})[0].promoted
    assert judge([better], GATES, now, {})[0].promoted
    assert not judge([candidate("maskgit", "g2", gfwd=51.0)], GATES, {}, {})[0].promoted


def test_a_missing_or_undefined_number_passes_nothing():
    (missing,) = judge([candidate("tokenizer", "t2")], GATES, {}, {})
    assert missing.reason.startswith("required: psnr failed: not measured")
    assert not judge([candidate("tokenizer", "t2", psnr=math.nan)], GATES, {}, {})[0].promoted


def test_what_is_in_production_already_is_left_there():
    (decision,) = judge([candidate("tokenizer", "t1", psnr=1.0)], GATES, {"tokenizer": OLD["tokenizer"]}, {})
    assert (decision.promoted, decision.reason) == (False, "v1 is in production already")


def test_a_tokenizer_waits_for_the_generator_that_was_trained_on_it():
    bad = replace(MASKGIT, metrics={"gfwd": 60.0})
    for production in ({}, OLD):
        tokenizer, generator = judge([TOKENIZER, bad], GATES, production, BOUND)
        assert not tokenizer.promoted
        assert not generator.promoted
        assert "carries maskgit failed" in tokenizer.reason
        assert "gfwd <= 50 failed: 60" in generator.reason


def test_a_generator_does_not_go_without_its_tokenizer():
    bad = replace(TOKENIZER, metrics={"psnr": 3.0})
    tokenizer, generator = judge([bad, MASKGIT], GATES, OLD, BOUND)
    assert not tokenizer.promoted
    assert not generator.promoted
    assert generator.reason == "bound to tokenizer failed: tokenizer t2 against tokenizer t1"


def test_a_new_generator_joins_the_tokenizer_in_production():
    known = candidate("tokenizer", "t1", psnr=21.1)
    tokenizer, generator = judge([known, replace(MASKGIT, parents={"tokenizer": "t1"})], GATES, OLD, BOUND)
    assert not tokenizer.promoted
    assert generator.promoted


def test_a_tokenizer_alone_does_not_leave_the_generator_in_production_behind():
    (decision,) = judge([TOKENIZER], GATES, OLD, BOUND)
    assert decision.reason == "carries maskgit failed: tokenizer t1 against tokenizer t2"


def test_one_of_two_generators_that_fails_holds_back_all_three():
    samba = candidate("samba", "s2", {"tokenizer": "t2"}, gfwd=99.0)
    gates = GATES | {"samba": GATES["maskgit"]}
    decisions = judge([TOKENIZER, MASKGIT, samba], gates, {}, {"maskgit": "tokenizer", "samba": "tokenizer"})
    assert [d.promoted for d in decisions] == [False, False, False]


def test_the_committed_policy_is_valid():
    assert set(read_policy(ROOT / "mlflow" / "promotion.yaml", MODELS)) == set(MODELS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tokeniser: {}", "'tokeniser' is not a model of dvc.yaml; did you mean 'tokenizer'?"),
        ("tokenizer: {treshold: {psnr: 1}}", "treshold is not a parameter; did you mean 'thresholds'?"),
        ("tokenizer: {thresholds: {pnsr: 1}}", "'pnsr' is not a metric; did you mean 'psnr'?"),
        ("tokenizer: {required: [lpipz]}", "tokenizer.required: 'lpipz' is not a metric"),
        ("tokenizer: {margins: {psnr: much}}", "tokenizer.margins.psnr must be a number, not 'much'"),
        ("tokenizer: {thresholds: [psnr]}", "tokenizer.thresholds must be"),
        ("tokenizer: [1]", "'tokenizer' must be a section"),
    ],
)
def test_a_mistake_in_the_policy_is_named(tmp_path, text, says):
    path = tmp_path / "promotion.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_policy(path, MODELS)
    assert says in str(error.value)
    assert str(path) in str(error.value)
