"""The promotion policy: what it may say, and that a mistake in it is named with the field."""

import shutil
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.pipeline import parameters
from flows.pipeline.families import models_of
from flows.release.gates.policy import Latency, gates_of, read_policy

ROOT = Path(__file__).parents[2]
MODELS = ["tokenizer", "maskgit", "depth-teacher", "depth-small"]


@pytest.fixture
def commit(tmp_path):
    """What the gates read of a commit."""
    shutil.copytree(ROOT / "mlflow", tmp_path / "mlflow")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def read(tmp_path: Path, text: str):
    path = tmp_path / "promotion.yaml"
    path.write_text(text)
    return read_policy(path, MODELS)


@pytest.mark.parametrize("recipe", [None, "tiny"])
def test_the_policy_of_a_recipe_has_a_gate_for_every_model(commit, recipe):
    parameters.apply(commit, parameters.changes(ROOT, recipe, []))
    gates = gates_of(commit)
    assert set(gates) == {model.name for model in models_of(ROOT)}
    assert all(gate.validation for gate in gates.values())
    assert {name for name, gate in gates.items() if not gate.margins} == {"samba"}  # it holds nothing back
    assert gates["tokenizer"].thresholds["psnr"] == (9 if recipe else 16)


def test_a_policy_that_the_commit_does_not_have_is_named_with_those_it_has(commit):
    parameters.apply(commit, {"policy": "mlflow/promotion.tny.yaml"})
    with pytest.raises(UserError, match=r"params.yaml: policy 'mlflow/promotion.tny.yaml' is none of .*promotion.tiny"):
        gates_of(commit)


def test_a_policy_outside_of_the_commit_is_not_read(commit):
    parameters.apply(commit, {"policy": "../promotion.yaml"})
    with pytest.raises(UserError, match="policy '../promotion.yaml' is none of this commit's"):
        gates_of(commit)


def test_a_commit_whose_parameters_name_no_policy_has_the_one_there_always_was(commit):
    text = (commit / "params.yaml").read_text()
    (commit / "params.yaml").write_text("\n".join(one for one in text.splitlines() if not one.startswith("policy")))
    assert gates_of(commit)["tokenizer"].thresholds["psnr"] == 16
    (commit / "params.yaml").unlink()
    assert gates_of(commit)["tokenizer"].thresholds["psnr"] == 16


def test_a_whole_gate_is_read_with_its_types(tmp_path):
    text = (
        "tokenizer: {required: [psnr], thresholds: {psnr: 16}, margins: {psnr: 0.2}, max_bytes: 1_000, "
        "latency: {milliseconds: 40, ratio: 1.5}, validation: required, approval: required}"
    )
    gate = read(tmp_path, text)["tokenizer"]
    assert gate.required == ("psnr",)
    assert gate.max_bytes == 1000
    assert gate.latency == Latency(40.0, 1.5)
    assert gate.latency.asked
    assert gate.approval == gate.validation == "required"


def test_an_empty_section_asks_for_nothing(tmp_path):
    gate = read(tmp_path, "tokenizer:")["tokenizer"]
    assert not gate.latency.asked
    assert (gate.required, gate.thresholds, gate.margins, gate.approval) == ((), {}, {}, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tokeniser: {}", "'tokeniser' is not a model of dvc.yaml; did you mean 'tokenizer'?"),
        ("tokenizer: {treshold: {psnr: 1}}", "tokenizer.treshold is not a parameter; did you mean 'thresholds'?"),
        ("tokenizer: {thresholds: {pnsr: 1}}", "tokenizer.thresholds: 'pnsr' is not a metric; did you mean 'psnr'?"),
        ("tokenizer: {required: [lpipz]}", "tokenizer.required: 'lpipz' is not a metric"),
        ("tokenizer: {required: psnr}", "tokenizer.required must be a list, not 'psnr'"),
        ("tokenizer: {margins: {psnr: much}}", "tokenizer.margins.psnr must be a number, not 'much'"),
        ("tokenizer: {margins: {psnr: true}}", "tokenizer.margins.psnr must be a number, not True"),
        ("tokenizer: {thresholds: {psnr: .nan}}", "tokenizer.thresholds.psnr must be a number, not nan"),
        ("tokenizer: {margins: {psnr: -0.2}}", "tokenizer.margins.psnr must be at least 0, not -0.2"),
        ("tokenizer: {margins: {1: 1}}", "1 stands where a name must"),
        ("tokenizer: {thresholds: [psnr]}", "tokenizer.thresholds must be"),
        ("tokenizer: {max_bytes: 1.5}", "tokenizer.max_bytes must be a whole number or null, not 1.5"),
        ("tokenizer: {max_bytes: 0}", "tokenizer.max_bytes must be more than 0"),
        ("tokenizer: {latency: 40}", "tokenizer.latency must be a section"),
        ("tokenizer: {latency: {ms: 40}}", "tokenizer.latency.ms is not a parameter"),
        ("tokenizer: {latency: {ratio: -1}}", "tokenizer.latency.ratio must be more than 0, not -1"),
        ("tokenizer: {latency: {ratio: .inf}}", "tokenizer.latency.ratio must be a finite number, not inf"),
        ("tokenizer: {approval: requierd}", "'required' or left out, not 'requierd'; did you mean 'required'?"),
        ("tokenizer: {validation: true}", "tokenizer.validation must be a text or null, not True"),
        ("tokenizer: [1]", "'tokenizer' must be a section"),
        ("tokenizer: {", "not valid YAML"),
        ("- 1", "must hold key: value lines, not list"),
    ],
)
def test_a_mistake_in_the_policy_is_named(tmp_path, text, says):
    with pytest.raises(UserError) as error:
        read(tmp_path, text)
    assert says in str(error.value)
    assert str(tmp_path / "promotion.yaml") in str(error.value)
