"""The verdict on a reproduction, from the digests, the tensors and the metrics."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from flows.pipeline.graph import Stage
from flows.pipeline.plan import Recorded
from flows.reproduce import compare
from flows.reproduce.compare import DIFFERENT, IDENTICAL, WITHIN, StageProof, TensorDifference, Tolerance, Weights

STAGE = Stage("tokenizer", "train", deps=("scenes",), params=("seed",), outs=("model", "metrics.json"))
THEN = Recorded("train", {"scenes": "a"}, {"seed": 1}, {"model": "m.dir", "metrics.json": "n"})
SCENES = StageProof("scenes", {"scenes": "a"}, {"scenes": "a"})
NEAR = TensorDifference("net.weight", (4,), 1e-5, 1e-5, 0.5)


def trained(tensor=NEAR, metrics=(20.0, 20.0), **changes):
    """A training stage that came out with other bytes."""
    proof = StageProof("tokenizer", {"model": "1"}, {"model": "2"}, (), (), (Weights("model", (tensor,)),))
    return replace(proof, metrics={"psnr": metrics}, **changes)


def test_equal_digests_are_identical_whatever_the_tolerance():
    assert compare.verdict([SCENES, compare.stage_proof(STAGE, THEN, THEN)], Tolerance(0, 0)) == IDENTICAL


def test_one_other_digest_is_not_identical_and_names_the_output():
    proof = compare.stage_proof(STAGE, THEN, replace(THEN, outs={"model": "other", "metrics.json": "n"}))
    assert (proof.identical, proof.outs, proof.inputs) == (False, ("model",), ())


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (replace(THEN, params={"seed": 2}), ("seed: 1 -> 2",)),
        (replace(THEN, deps={"scenes": "b"}), ("scenes changed",)),
        (replace(THEN, cmd="other"), ()),  # the command is the stage's own, and told as altered
    ],
)
def test_what_of_the_inputs_differs_is_told(now, words):
    assert compare.stage_proof(STAGE, THEN, now).inputs == words


def test_a_missing_output_is_a_difference():
    assert not compare.stage_proof(STAGE, THEN, replace(THEN, outs={"model": "m.dir"})).identical


def test_near_tensors_and_metrics_are_the_same_within_tolerance():
    assert compare.verdict([SCENES, trained()], Tolerance()) == WITHIN


@pytest.mark.parametrize(
    "proof",
    [
        trained(replace(NEAR, relative=0.01)),
        trained(metrics=(20.0, 19.0)),
        trained(metrics=(20.0, math.nan)),
        trained(altered=("seed: 1 -> 2",)),
        trained(weights=(Weights("model", None),)),
        replace(trained(), metrics=None),
    ],
    ids=["far tensor", "far metric", "metric gone", "changed seed", "unknown weights", "unknown metrics"],
)
def test_what_is_far_altered_or_unknown_is_different(proof):
    assert compare.verdict([SCENES, proof], Tolerance()) == DIFFERENT


def test_a_changed_parameter_before_the_model_counts_too():
    altered = replace(SCENES, now={"scenes": "b"}, altered=("seed: 1 -> 2",))
    assert compare.verdict([altered, trained()], Tolerance(1, 1)) == DIFFERENT


def test_data_with_other_bytes_is_judged_by_the_models_made_from_it():
    assert compare.verdict([replace(SCENES, now={"scenes": "b"}), trained()], Tolerance()) == WITHIN


def test_the_first_stage_in_order_is_named():
    assert compare.first([SCENES, trained(), trained()]).stage == "tokenizer"
    assert compare.first([SCENES]) is None


def test_the_worst_verdict_counts():
    assert compare.worst([IDENTICAL, WITHIN]) == WITHIN
    assert compare.worst([DIFFERENT, WITHIN, IDENTICAL]) == DIFFERENT


@pytest.fixture
def files(tmp_path):
    def write(then, now):
        save_file(then, tmp_path / "then.safetensors")
        save_file(now, tmp_path / "now.safetensors")
        return compare.tensors_apart(tmp_path / "then.safetensors", tmp_path / "now.safetensors")

    return write


def test_equal_tensors_do_not_differ_even_with_nan(files):
    same = {"a": torch.tensor([1.0, math.nan]), "b": torch.ones(3, dtype=torch.bfloat16), "c": torch.zeros(())}
    assert files(same, {key: value.clone() for key, value in same.items()}) == []


def test_a_tensor_is_measured_by_largest_norm_and_share(files):
    (found,) = files({"a": torch.tensor([3.0, 4.0])}, {"a": torch.tensor([3.0, 4.5])})
    assert found == TensorDifference("a", (2,), 0.5, pytest.approx(0.1), 0.5)


def test_the_farthest_tensor_comes_first(files):
    then = {"near": torch.ones(4), "far": torch.ones(4)}
    assert [one.name for one in files(then, {"near": torch.ones(4) * 1.01, "far": -torch.ones(4)})] == ["far", "near"]


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        ({"a": torch.ones(3)}, "was (2,)"),
        ({"a": torch.ones(2, dtype=torch.float64)}, "was float32"),
        ({"b": torch.ones(2)}, "only in the original"),
    ],
)
def test_what_cannot_be_compared_is_infinitely_far(files, now, problem):
    found = files({"a": torch.ones(2)}, now)
    assert (found[0].problem, found[0].relative) == (problem, math.inf)


def test_a_number_that_became_nan_is_infinitely_far(files):
    (found,) = files({"a": torch.ones(2)}, {"a": torch.tensor([1.0, math.nan])})
    assert found.relative == math.inf


def test_integers_and_negative_zero_are_compared_bit_by_bit(files):
    (found,) = files({"a": torch.tensor([0.0])}, {"a": torch.tensor([-0.0])})
    assert (found.largest, found.relative) == (0.0, 0.0)
    (found,) = files({"a": torch.tensor([1, 2])}, {"a": torch.tensor([1, 3])})
    assert found.largest == 1.0
