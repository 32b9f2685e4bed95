"""A proof is shown to people and programs, and noted on the version in the registry that has these weights."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from flows import settings
from flows.pipeline.environment import Environment
from flows.pipeline.families import models_in
from flows.pipeline.graph import Stage
from flows.reproduce import report, run
from flows.reproduce.compare import (
    DIFFERENT,
    FAILED,
    IDENTICAL,
    WITHIN,
    StageProof,
    TensorDifference,
    Tolerance,
    Weights,
)
from flows.reproduce.prove import ModelProof, Proof
from flows.reproduce.target import Target
from models.tracking import training_run

MODEL = models_in("artifacts: {tokenizer: {path: artifacts/tokenizer/model, type: model}}")[0]
TARGET = Target(MODEL, "tokenizer@v3.0.0", "c" * 40, "a" * 64, "git's tags")
HERE = Environment("", "CPython 3.11.7", "2.13.0", "Linux", "x86_64", "AuthenticAMD family 26 model 2", "avx512")
FAR = TensorDifference("net.weight", (4, 2), 0.5, math.inf, 0.25, "was (2, 4)")
STAGES = (
    StageProof("scenes", {"scenes": "1"}, {"scenes": "1"}, seconds=2.5),
    StageProof(
        "tokenizer",
        {"model": "1", "metrics.json": "1"},
        {"model": "2", "metrics.json": "2"},
        ("seed: 1 -> 2",),
        weights=(Weights("model/model.safetensors", (FAR,)), Weights("other.safetensors", None)),
        metrics={"psnr": (20.0, 19.0), "ssim": (0.5, 0.5)},
    ),
)


def proof(verdict=DIFFERENT, stages=STAGES, environment=(), noted=True, there=HERE):
    model = ModelProof(TARGET, verdict, ("scenes", "tokenizer"), "tokenizer", "b" * 64, "tokenizer: seed: 1 -> 2")
    ran = {"scenes": HERE, "tokenizer": there}
    return Proof((model,), stages, Tolerance(), "scratch", ran, noted, environment, 12.0)


def test_the_text_names_stage_tensor_metric_and_verdict():
    lines = report.text(proof()).splitlines()
    assert lines[1].split() == ["scenes", "2.5", "identical"]
    assert "0 of 2 the same" in lines[2]
    assert "seed: 1 -> 2" in lines[2]
    assert any(line.split()[:4] == ["net.weight", "4x2", "5.00e-01", "-"] and "was (2, 4)" in line for line in lines)
    assert any(line.split() == ["psnr", "20", "19", "5.00e-02"] for line in lines)
    assert not any(line.startswith("ssim") for line in lines)
    assert any("other.safetensors: the original's bytes are not within reach" in line for line in lines)
    assert lines[-1].startswith("tokenizer@v3 of cccccccccccc, from scratch: different, first in stage tokenizer.")


@pytest.mark.parametrize(
    ("verdict", "words"),
    [(IDENTICAL, "identical."), (WITHIN, "same within tolerance (each tensor within 0.001"), (FAILED, "failed.")],
)
def test_each_verdict_has_its_sentence(verdict, words):
    made = proof(verdict)
    assert words in report.sentence(made.models[0], made)


def test_another_environment_or_an_unknown_one_is_part_of_the_text():
    assert "torch: 2.9 then, 2.13 now" in report.text(proof(environment=("torch: 2.9 then, 2.13 now",)))
    assert "did not note its own" in report.text(proof(noted=False))


def test_several_workers_are_named_each_with_its_stages():
    made = proof(there=replace(HERE, gpu="NVIDIA H200, driver 570.1"))
    assert made.here.machine == "x86_64 AuthenticAMD avx512, x86_64 AuthenticAMD avx512 NVIDIA H200"
    assert made.here.digest == "+".join(one.digest for one in made.ran.values())
    machines = [stage["machine"] for stage in report.to_json(made)["stages"]]
    assert [machine.endswith("H200") for machine in machines] == [False, True]


def test_the_json_is_plain_json_even_with_infinities():
    found = json.loads(json.dumps(report.to_json(proof()), allow_nan=False))
    assert found["verdict"] == "different"
    assert found["stages"][1]["tensors"]["model/model.safetensors"][0]["relative"] is None
    assert found["stages"][1]["tensors"]["other.safetensors"] is None
    assert found["models"][0]["stages"] == {"scenes": True, "tokenizer": False}


class Registry:
    """Two versions with one weights digest: both are the model that was made again."""

    def __init__(self):
        self.noted, self.runs = {}, {}

    def search_model_versions(self, wanted):
        assert f"tag.weights = '{'a' * 64}'" in wanted
        return [SimpleNamespace(version=number, run_id=f"trained {number}") for number in ("3", "5")]

    def set_model_version_tag(self, name, version, key, value):
        self.noted[name, version] = (key, value)

    def set_tag(self, run_id, key, value):
        self.runs[run_id] = (key, value)


def test_every_version_of_these_weights_gets_the_verdict(tmp_path, monkeypatch):
    registry = Registry()
    monkeypatch.setattr(training_run, "connect", lambda uri: (registry, ""))
    chosen = settings.load(tmp_path).model_copy(update={"mlflow_uri": "http://mlflow"})
    assert list(run._in_registry(chosen, proof(IDENTICAL))) == []
    assert set(registry.noted) == {("tokenizer", "3"), ("tokenizer", "5")}
    assert set(registry.runs.values()) == set(registry.noted.values())
    key, value = registry.noted["tokenizer", "3"]
    assert key == "reproduced"
    assert value.startswith("identical, 20")
    assert value.endswith("x86_64 AuthenticAMD avx512")


def test_a_registry_that_does_not_answer_costs_no_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "connect", lambda uri: (None, "the MLflow server does not answer"))
    chosen = settings.load(tmp_path).model_copy(update={"mlflow_uri": "http://mlflow"})
    assert list(run._in_registry(chosen, proof())) == ["not in the registry: the MLflow server does not answer"]


def test_a_clone_without_a_registry_gets_none(tmp_path):
    assert list(run._in_registry(settings.load(tmp_path), proof())) == ["not in a registry: this clone has none"]
    assert not (tmp_path / ".remint").exists()


def job(lock, then=HERE):
    then = {"tokenizer": then}
    return SimpleNamespace(
        lock=lock,
        then=then,
        stages=[Stage("tokenizer", "train")],
        targets=(TARGET,),
        run=SimpleNamespace(id="reproduce-c"),
    )


def test_two_outputs_of_one_input_are_an_alarm_unless_the_machine_is_another():
    entry = {"cmd": "train", "deps": [{"path": "scenes", "md5": "1"}], "outs": [{"path": "model", "md5": "1"}]}
    other = entry | {"outs": [{"path": "model", "md5": "2"}]}
    changed = other | {"deps": [{"path": "scenes", "md5": "2"}]}
    made = proof(stages=STAGES[1:])
    (alarm,) = run.alarms(job({"tokenizer": entry}), {"tokenizer": other}, made)
    assert (alarm.stage, len(set(alarm.outputs)), alarm.machines[0]) == ("tokenizer", 2, HERE.machine)
    assert list(run.alarms(job({"tokenizer": entry}), {"tokenizer": changed}, made)) == []
    elsewhere = proof(stages=STAGES[1:], there=replace(HERE, cpu="GenuineIntel family 6 model 207"))
    assert list(run.alarms(job({"tokenizer": entry}), {"tokenizer": other}, elsewhere)) == []
