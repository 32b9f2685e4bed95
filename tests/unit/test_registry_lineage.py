"""What a version is bound to: the data behind an output, and the family of a model folder."""

import pytest

from data.core.params import UserError
from flows.pipeline.families import models_of
from flows.pipeline.lock import data_of


def stage(out: str, digest: str, *deps: str) -> dict:
    return {"deps": [{"path": dep, "md5": "x"} for dep in deps], "outs": [{"path": out, "md5": digest}]}


LOCK = {
    "stages": {
        "scenes": stage("artifacts/scenes", "s.dir", "data/scenes"),
        "photos": stage("artifacts/photos", "p.dir", "data/photos"),
        "validate": stage("artifacts/validate/report.json", "v", "artifacts/scenes", "artifacts/photos"),
        "tokenizer": stage("artifacts/tokenizer/model", "t.dir", "artifacts/scenes", "artifacts/validate/report.json"),
        "teacher": stage("artifacts/depth-teacher/model", "d.dir", "artifacts/scenes"),
        "student": stage("artifacts/student/model", "m.dir", "artifacts/photos", "artifacts/depth-teacher"),
    }
}


def test_the_data_behind_a_model_is_what_the_first_stages_made():
    assert data_of(LOCK, "artifacts/student/model") == {"photos": "p.dir", "scenes": "s.dir"}


def test_data_that_was_only_validated_beside_it_is_not_behind_a_model():
    assert data_of(LOCK, "artifacts/tokenizer/model") == {"scenes": "s.dir"}


def test_an_output_that_no_stage_made_has_no_data():
    assert data_of(LOCK, "artifacts/unknown") == {}


def test_the_models_of_a_graph_know_their_stage_evaluation_and_bond(tmp_path):
    (tmp_path / "dvc.yaml").write_text(
        "artifacts:\n"
        "  samba: {path: artifacts/generator/samba/model, type: model}\n"
        "  depth-base: {path: artifacts/depth-student/base/model, type: model}\n"
    )
    samba, base = models_of(tmp_path)
    assert (samba.stage, samba.evaluation, samba.bound_to) == ("generator@samba", "samba", "tokenizer")
    assert (base.stage, base.evaluation, base.section) == ("depth-student@base", "depth", "base")
    assert base.learned_from == "depth-teacher"


def test_an_artifact_of_no_known_family_is_named_with_the_near_one(tmp_path):
    (tmp_path / "dvc.yaml").write_text("artifacts:\n  x: {path: artifacts/tokeniser/model, type: model}\n")
    with pytest.raises(UserError, match="artifacts.x.path .* is of no family; did you mean 'tokenizer'"):
        models_of(tmp_path)
