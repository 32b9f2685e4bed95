"""The gates: which rule lets a release into production, by hand-computed cases, and which models move together."""

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.catalogue.registered import Registered
from flows.pipeline.families import Model
from flows.release.gates.compare import InProduction, Measured, Samples, Speed
from flows.release.gates.decision import Decision, Rule, apply_approvals, says
from flows.release.gates.judge import SAME, decide
from flows.release.gates.policy import Gate, Latency

BOUND = {"maskgit": "tokenizer"}
FAMILY = {"tokenizer": "images", "maskgit": "images", "samba": "images"}
N = 400


def candidate(name: str, weights: str, parents=None, **metrics: float) -> Registered:
    model = Model(name, Path("artifacts") / name / "model", "", name, FAMILY.get(name, "depth"), name, name)
    return Registered(model, 2, weights, parents or {}, metrics, "run")


def samples(name: str, differences: Iterable[float]) -> Samples:
    values = np.asarray(list(differences), np.float64)
    return Samples(tuple(f"k{i}" for i in range(len(values))), {name: values})


def exactly(mean: float, spread: float, n: int = N) -> np.ndarray:
    """Values of just this mean and sample standard deviation."""
    values = np.random.default_rng(5).normal(size=n)
    return mean + spread * (values - values.mean()) / values.std(ddof=1)


def judged(gate: Gate, difference: float, spread: float, name: str = "psnr", n: int = N) -> Decision:
    """A tokenizer whose `name` differs from production's by `difference` on average."""
    now = InProduction(1, "t1", {}, {name: 20.0}, samples(name, np.full(n, 20.0)))
    shown = Measured(samples(name, 20.0 + exactly(difference, spread, n)))
    one = candidate("tokenizer", "t2", **{name: 20.0 + difference})
    (decision,) = decide([one], {"tokenizer": gate}, {"tokenizer": now}, {}, {"tokenizer": shown})
    return decision


def rule(decision: Decision, beginning: str) -> Rule:
    (found,) = [rule for rule in decision.rules if rule.name.startswith(beginning)]
    return found


GATE = Gate(margins={"psnr": 0.2})
ERROR = 1.0 / math.sqrt(N)  # standard error 0.05 with a spread of 1


@pytest.mark.parametrize(
    ("difference", "spread", "non_inferior", "better"),
    [
        (+0.30, 1.0, True, True),  # 0.30 - 1.64 * 0.05 = 0.218 > 0.02
        (+0.11, 1.0, True, True),  # 0.11 - 0.082 = 0.028 > 0.02
        (+0.09, 1.0, True, False),  # 0.09 - 0.082 = 0.008: more than the noise, less than a tenth of the margin
        (+0.07, 1.0, True, False),  # 0.07 - 0.082 < 0: within the noise
        (+0.00, 1.0, True, False),  # -0.098 > -0.2
        (-0.09, 1.0, True, False),  # -0.09 - 1.96 * 0.05 = -0.188 > -0.2
        (-0.12, 1.0, False, False),  # -0.218 < -0.2 although the difference itself keeps to the margin
        (-0.30, 1.0, False, False),
        (+0.30, 9.0, False, False),  # 0.30 - 1.96 * 0.45 = -0.58: too noisy to say
        (+0.021, 0.0, True, True),  # no noise at all
        (+0.019, 0.0, True, False),
        (-0.19, 0.0, True, False),
    ],
)
def test_non_inferiority_and_superiority_of_hand_computed_cases(difference, spread, non_inferior, better):
    decision = judged(GATE, difference, spread)
    assert rule(decision, "psnr >=").passed is non_inferior
    assert rule(decision, "better than production").passed is better
    assert decision.promoted is (non_inferior and better)


def test_a_rule_carries_every_number_of_its_comparison():
    found = rule(judged(GATE, 0.3, 1.0), "psnr >= production - 0.2")
    assert (found.candidate, found.production, found.limit) == pytest.approx((20.3, 20.0, 19.8))
    assert (found.difference, found.low, found.high) == pytest.approx(
        (0.3, 0.3 - 1.96 * ERROR, 0.3 + 1.96 * ERROR), abs=0.004
    )
    assert found.samples == N


@pytest.mark.parametrize(("difference", "non_inferior", "better"), [(-0.3, True, True), (0.3, False, False)])
def test_a_metric_that_should_be_low_is_compared_the_other_way_round(difference, non_inferior, better):
    decision = judged(Gate(margins={"abs_rel": 0.2}), difference, 1.0, "abs_rel")
    assert rule(decision, "abs_rel <= production + 0.2").passed is non_inferior
    assert rule(decision, "better").passed is better
    assert rule(decision, "abs_rel").difference == pytest.approx(difference)


def test_a_margin_of_nothing_asks_for_no_worse_beyond_doubt():
    assert judged(Gate(margins={"psnr": 0}), 0.12, 1.0).promoted
    assert not judged(Gate(margins={"psnr": 0}), 0.09, 1.0).promoted


def two_metrics(better: float, other: float) -> Decision:
    """psnr and ssim, each with a standard error of 0.05 and a margin of 0.3."""
    values = {"psnr": 20 + exactly(better, 1.0), "ssim": 20 + exactly(other, 1.0)[::-1]}
    keys = tuple(f"k{i}" for i in range(N))
    now = InProduction(1, "t1", {}, {}, Samples(keys, dict.fromkeys(values, np.full(N, 20.0))))
    gates = {"tokenizer": Gate(margins={"psnr": 0.3, "ssim": 0.3})}
    shown = {"tokenizer": Measured(Samples(keys, values))}
    return decide([candidate("tokenizer", "t2")], gates, {"tokenizer": now}, {}, shown)[0]


def test_the_more_metrics_are_tested_the_more_one_must_show():
    """0.12 is more by 0.03 than 1.64 standard errors of 0.05, but not than the 1.96 that two metrics ask for."""
    assert judged(Gate(margins={"psnr": 0.3}), 0.12, 1.0).promoted
    assert not two_metrics(0.12, 0.0).promoted
    assert two_metrics(0.14, 0.0).promoted
    assert "97.50%" in rule(two_metrics(0.14, 0.0), "better").note
    assert rule(two_metrics(0.14, 0.0), "better").candidate == "tokenizer psnr"


def test_better_in_one_metric_does_not_pay_for_worse_in_another():
    decision = two_metrics(0.9, -0.4)
    assert rule(decision, "better").passed
    assert not decision.promoted
    assert decision.reason.startswith("ssim >= production - 0.3 failed: 19.6 against 20 in production (difference -0.4")


TOKENIZER = candidate("tokenizer", "t2", psnr=21.0)
MASKGIT = candidate("maskgit", "g2", {"tokenizer": "t2"}, class_agreement=80.0, recall=0.5)
SAME_AGREEMENT = samples("class_agreement", exactly(0, 5))
OLD = {
    "tokenizer": InProduction(1, "t1", {}, {"psnr": 20.0}, samples("psnr", np.full(N, 20.0))),
    "maskgit": InProduction(1, "g1", {"tokenizer": "t1"}, {"recall": 0.5}, SAME_AGREEMENT),
}
SHOWN = {
    "tokenizer": Measured(samples("psnr", 20 + exactly(1.0, 1.0))),
    "maskgit": Measured(samples("class_agreement", exactly(0, 5))),
}
GATES = {
    "tokenizer": Gate(("psnr",), {"psnr": 16}, {"psnr": 0.2}),
    "maskgit": Gate((), {"recall": 0.2}, {"class_agreement": 3, "recall": 0.05}),
}


def images(*candidates: Registered, production=OLD, gates=GATES, shown=SHOWN, approved=()) -> list[Decision]:
    return decide(candidates or [TOKENIZER, MASKGIT], gates, production, BOUND, shown, approved)


def test_a_first_release_needs_only_what_is_required_and_its_thresholds():
    decisions = images(production={}, shown={})
    assert [(d.verdict, d.reason, d.replaces) for d in decisions] == [("passed", "first release", None)] * 2


def test_a_threshold_refuses_even_a_first_version_and_says_both_numbers():
    (decision,) = images(candidate("tokenizer", "t2", psnr=14.2), production={})
    assert (decision.verdict, decision.reason) == ("refused", "psnr >= 16 failed: 14.2")
    assert [(r.candidate, r.limit) for r in decision.failed] == [(14.2, 16)]


def test_a_missing_or_undefined_number_passes_nothing():
    (missing,) = images(candidate("tokenizer", "t2"), production={})
    assert missing.reason.startswith("required: psnr failed: not measured")
    assert not images(candidate("tokenizer", "t2", psnr=math.nan), production={})[0].promoted


def test_one_better_member_carries_one_that_is_only_no_worse():
    """The tokenizer is better; its generator had to be trained again and is equal."""
    decisions = images()
    assert [(d.verdict, d.reason, d.replaces) for d in decisions] == [("passed", "replaces v1", 1)] * 2
    assert rule(decisions[1], "better").candidate == "tokenizer psnr"


def test_a_release_that_is_better_nowhere_is_refused_whole():
    shown = SHOWN | {"tokenizer": Measured(samples("psnr", 20 + exactly(0.0, 1.0)))}
    decisions = images(shown=shown)
    assert [d.verdict for d in decisions] == ["refused", "refused"]
    reason = "better than production by more than noise and 0.1 x margin in one of 2 metrics failed: none"
    assert decisions[0].reason.startswith(reason)


def test_a_metric_without_values_per_sample_is_compared_plainly_and_says_so():
    found = rule(images()[1], "recall >= production - 0.05")
    assert (found.passed, found.low, found.samples) == (True, None, None)
    assert found.note.startswith("plain")
    worse = replace(MASKGIT, metrics={"class_agreement": 80.0, "recall": 0.44})
    tokenizer, maskgit = images(TOKENIZER, worse)
    assert maskgit.reason == "recall >= production - 0.05 failed: 0.44 against 0.5 in production"
    assert tokenizer.reason == "released with maskgit failed: refused against passed"


def test_a_plain_metric_cannot_prove_that_a_release_is_better():
    gates = {"maskgit": Gate(margins={"recall": 0.05})}
    one = candidate("maskgit", "g2", {"tokenizer": "t1"}, recall=0.9)
    (decision,) = images(one, gates=gates)
    assert decision.reason.startswith("better than production by more than noise and 0.1 x margin in one of 0 metrics")
    assert "no metric under margins has values" in decision.failed[0].note


def test_production_without_numbers_of_this_context_is_not_compared_with():
    problem = "production v1: out of memory"
    (decision,) = images(TOKENIZER, production={"tokenizer": replace(OLD["tokenizer"], samples=None, problem=problem)})
    assert rule(decision, SAME).note == problem
    assert decision.reason.startswith(f"{SAME} failed: production v1: out of memory")


def test_a_candidate_without_samples_is_refused_and_says_why():
    problem = "the candidate's per_sample.parquet is missing"
    (decision,) = images(
        TOKENIZER, production={"tokenizer": OLD["tokenizer"]}, shown={"tokenizer": Measured(problem=problem)}
    )
    assert not decision.promoted
    assert rule(decision, "psnr >= production").note == problem


def test_samples_that_do_not_pair_up_refuse_the_candidate_with_the_reason():
    shown = {"tokenizer": Measured(samples("psnr", np.full(N - 1, 30.0)))}
    (decision,) = images(TOKENIZER, production={"tokenizer": OLD["tokenizer"]}, shown=shown)
    said = "psnr >= production - 0.2 failed: the candidate was not evaluated on 1 of the samples (k399, ...)"
    assert said in decision.reason


def test_what_is_in_production_already_is_left_there():
    (decision,) = images(candidate("tokenizer", "t1", psnr=1.0))
    assert (decision.verdict, decision.promoted, decision.reason) == ("unchanged", False, "v1 is in production already")


def test_a_new_generator_joins_the_tokenizer_in_production():
    known = candidate("tokenizer", "t1", psnr=20.0)
    shown = {"maskgit": Measured(samples("class_agreement", exactly(5, 5)))}
    tokenizer, generator = images(known, replace(MASKGIT, parents={"tokenizer": "t1"}), shown=shown)
    assert (tokenizer.verdict, generator.verdict) == ("unchanged", "passed")


def test_a_generator_of_another_tokenizer_is_refused_with_both_digests():
    tokenizer, generator = images(TOKENIZER, replace(MASKGIT, parents={"tokenizer": "t1"}))
    assert "bound to tokenizer failed: tokenizer t1 against tokenizer t2" in generator.reason
    assert "carries maskgit failed: tokenizer t1 against tokenizer t2" in tokenizer.reason


def test_a_tokenizer_alone_does_not_leave_the_generator_in_production_behind():
    (decision,) = images(TOKENIZER)
    assert decision.reason == "carries maskgit failed: tokenizer t1 against tokenizer t2"


def test_one_of_two_generators_that_fails_holds_back_all_three():
    samba = candidate("samba", "s2", {"tokenizer": "t2"}, recall=0.1)
    gates = GATES | {"samba": Gate(thresholds={"recall": 0.2})}
    decisions = decide([TOKENIZER, MASKGIT, samba], gates, OLD, BOUND | {"samba": "tokenizer"}, SHOWN)
    assert [d.verdict for d in decisions] == ["refused"] * 3
    assert decisions[0].reason == decisions[1].reason == "released with samba failed: refused against passed"


def test_a_model_that_production_lacks_is_a_reason_by_itself():
    samba = candidate("samba", "s2", {"tokenizer": "t1"}, recall=0.5)
    (decision,) = images(samba)
    assert (decision.verdict, decision.reason) == ("passed", "first release")


def test_families_are_judged_apart():
    teacher = candidate("depth-teacher", "d1", delta1=0.1)
    gates = GATES | {"depth-teacher": Gate(thresholds={"delta1": 0.5})}
    assert [d.verdict for d in images(TOKENIZER, teacher, MASKGIT, gates=gates)] == ["passed", "refused", "passed"]


@pytest.mark.parametrize(
    ("gate", "shown", "passes", "name"),
    [
        (Gate(max_bytes=100), Measured(bytes=100), True, "bytes of weights <= 100"),
        (Gate(max_bytes=100), Measured(bytes=101), False, "bytes of weights <= 100"),
        (Gate(max_bytes=100), Measured(), False, "bytes of weights <= 100"),
        (Gate(latency=Latency(milliseconds=5)), Measured(speed=Speed(4.9)), True, "ms per picture <= 5"),
        (Gate(latency=Latency(milliseconds=5)), Measured(speed=Speed(5.1)), False, "ms per picture <= 5"),
        (Gate(latency=Latency(milliseconds=5)), Measured(speed=Speed(problem="x")), False, "ms per picture <= 5"),
        (Gate(latency=Latency(ratio=1.5)), Measured(speed=Speed(14, 10)), True, "ms per picture <= 1.5 x production"),
        (Gate(latency=Latency(ratio=1.5)), Measured(speed=Speed(16, 10)), False, "ms per picture <= 1.5 x production"),
        (Gate(latency=Latency(ratio=1.5)), Measured(speed=Speed(problem="x")), False, "ms per picture <= 1.5 x prod"),
        (Gate(validation="required"), Measured(validation="passed"), True, "data passed validation"),
        (Gate(validation="required"), Measured(validation="failed: 2 critical"), False, "data passed validation"),
        (Gate(validation="required"), Measured(), False, "data passed validation"),
    ],
)
def test_size_speed_and_data_have_gates_of_their_own(gate, shown, passes, name):
    (decision,) = decide([candidate("tokenizer", "t2")], {"tokenizer": gate}, {}, {}, {"tokenizer": shown})
    assert rule(decision, name).passed is decision.promoted is passes


def test_the_first_release_has_no_production_to_be_as_fast_as():
    shown = {"tokenizer": Measured(speed=Speed(10.0))}
    (decision,) = decide([TOKENIZER], {"tokenizer": Gate(latency=Latency(ratio=1.5))}, {}, {}, shown)
    assert decision.promoted
    assert not decision.rules


APPROVED = GATES | {"tokenizer": replace(GATES["tokenizer"], approval="required")}


def test_a_version_waits_for_its_approval_and_the_release_with_it():
    tokenizer, maskgit = images(gates=APPROVED)
    assert (tokenizer.verdict, tokenizer.reason) == ("waiting", "waits for approval")
    assert (maskgit.verdict, maskgit.reason) == ("waiting", "waits for approval of tokenizer v2")


def test_an_approval_of_the_weights_lets_the_whole_release_pass():
    assert [d.verdict for d in images(gates=APPROVED, approved=["t2"])] == ["passed", "passed"]
    assert [d.verdict for d in images(gates=APPROVED, approved=["t1"])] == ["waiting", "waiting"]


def test_settling_stored_decisions_gives_what_judging_again_would():
    waiting = images(gates=APPROVED)
    assert apply_approvals(waiting, ["t2"]) == images(gates=APPROVED, approved=["t2"])
    assert apply_approvals(waiting, []) == waiting
    assert apply_approvals(apply_approvals(waiting, ["t2"]), ["t2"]) == apply_approvals(waiting, ["t2"])


def test_two_approvals_are_both_waited_for():
    gates = APPROVED | {"maskgit": replace(GATES["maskgit"], approval="required")}
    first = apply_approvals(images(gates=gates), ["t2"])
    assert [d.verdict for d in first] == ["waiting", "waiting"]
    assert [d.reason for d in first] == ["waits for approval of maskgit v2", "waits for approval"]
    assert [d.verdict for d in apply_approvals(first, ["t2", "g2"])] == ["passed", "passed"]


def test_an_approval_does_not_make_a_refused_release_pass_or_wait():
    bad = replace(MASKGIT, metrics={"recall": 0.0})
    for approved in ([], ["t2"]):
        decisions = images(TOKENIZER, bad, gates=APPROVED, approved=approved)
        assert [d.verdict for d in decisions] == ["refused", "refused"]
        assert "approval" not in decisions[1].reason


def test_a_failed_rule_is_said_with_its_numbers():
    assert says(Rule("psnr >= 16", False, 14.2, 16.0)) == "psnr >= 16 failed: 14.2"
    assert says(Rule("required: psnr", False, None, "a number")) == "required: psnr failed: not measured"
    whole = Rule("psnr >= production - 0.2", False, 19.7, 19.8, 20.0, -0.3, -0.4, -0.2, 100)
    assert says(whole).endswith("failed: 19.7 against 20 in production (difference -0.4 to -0.2)")
