"""The table that ends a run, and the values a run is described by."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

from flows.pipeline import families, run
from flows.pipeline.run import RunInfo, StageResult, headline
from flows.release.gates.compare import numbers
from flows.release.outcome import Release
from flows.show import table


def released(name, evaluation, section, before, after, **known):
    model = SimpleNamespace(name=name, evaluation=evaluation, section=section)
    now = SimpleNamespace(version=3, metrics=before)
    compared = {name: numbers(before, after, **known)}
    return Release(registered=(SimpleNamespace(model=model),), before={name: now}, compared=compared)


def test_the_headline_of_a_student_and_its_teacher_is_the_students():
    assert headline({"teacher.delta1": 0.9, "teacher.abs_rel": 0.1, "small.delta1": 0.8}) == "small.delta1"
    assert headline({"ssim": 0.9, "psnr": 21.0, "val_loss": 3.0}) == "psnr"
    assert headline({"val_loss": 3.0, "train_loss": 2.0}) == "val_loss"
    assert headline({"something": 1.0}) is None


def test_a_stage_is_compared_with_what_was_in_production():
    result = StageResult("evaluate@depth", "ran", 12.34, {"small.delta1": 0.81})
    made = released("depth-small", "depth", "small", {"delta1": 0.79}, {"delta1": 0.81}, margins={"delta1": 0.015})
    row = table.rows([result], made)[0]
    assert (row.production, row.production_version) == (0.79, 3)
    assert table.text([row]).splitlines()[1] == ("evaluate@depth  done     12.3  small.delta1 0.81  v3 0.79 better")


def test_a_generator_that_is_clearly_worse_is_called_worse_though_its_classes_are_seen_as_well():
    before = {"class_agreement": 99.69, "gfwd": 0.175, "recall": 0.43}
    after = {"class_agreement": 99.79, "gfwd": 0.250, "recall": 0.18}
    made = released("maskgit", "maskgit", "", before, after, margins={"class_agreement": 7.5, "gfwd": 0.05})
    row = table.rows([StageResult("evaluate@maskgit", "ran", 1.0, after)], made)[0]
    assert (row.metric, row.value, row.says) == ("gfwd", 0.250, "worse")


def test_a_change_within_the_margin_is_not_called_better():
    made = released("maskgit", "maskgit", "", {"gfwd": 0.175}, {"gfwd": 0.170}, margins={"gfwd": 0.05})
    row = table.rows([StageResult("evaluate@maskgit", "ran", 1.0, {"gfwd": 0.170})], made)[0]
    assert table.text([row]).splitlines()[1].endswith("gfwd 0.17  v3 0.175 within margin")


def test_nothing_is_said_of_a_change_whose_noise_nobody_knows():
    made = released("maskgit", "maskgit", "", {"gfwd": 0.175}, {"gfwd": 0.170})
    assert table.rows([StageResult("evaluate@maskgit", "ran", 1.0, {"gfwd": 0.170})], made)[0].says == ""


def test_without_production_the_column_stays_empty():
    row = table.rows([StageResult("tokenizer", "restored", 0.4, {"psnr": 21.0})], Release())[0]
    assert row.production is None
    assert table.text([row]).endswith("psnr 21")
    assert table.to_json([row])[0]["production"] is None


def test_the_id_of_a_run_sorts_by_time_and_names_the_commit():
    started = datetime(2026, 11, 21, 1, 24, 34, tzinfo=UTC)
    assert run.run_id(started, "1a2b3c4d5e") == "20261121T012434Z-1a2b3c4"


def test_a_run_survives_json():
    one = RunInfo("id", "run/id", "c", "b", Path("/w"), True, "p", datetime(2026, 1, 2, tzinfo=UTC), "retrain")
    assert run.from_json(json.loads(json.dumps(run.to_json(one)))) == one


def test_nested_metrics_are_joined_by_dots(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"teacher": {"delta1": 0.9}, "count": 3, "name": "x", "flag": true}')
    assert families.read_metrics(path) == {"teacher.delta1": 0.9, "count": 3.0}
