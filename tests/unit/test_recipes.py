"""params.yaml and every recipe over it: each stage must be able to read its section."""

import importlib
from pathlib import Path

import pytest

from data import params
from flows import parameters

ROOT = Path(__file__).parents[2]
SECTIONS = {
    "scenes": "data.scenes.render:Parameters",
    "photos": "data.photos.collect:Photos",
    "validate": "data.validate.check:Validate",
    "proxy": "models.proxy.train:Params",
    "warmup": "models.tokenizer.warm_up:Params",
    "tokenizer": "models.tokenizer.fine_tune:Params",
    "tokens": "models.tokenizer.encode:Params",
    "generator.maskgit": "models.generator.train:Params",
    "depth.teacher": "models.depth.train_teacher:Params",
    "depth.labels": "models.depth.label:Params",
    "depth.student.small": "models.depth.train_student:Params",
    "evaluate.tokenizer": "models.tokenizer.evaluate:Params",
    "evaluate.maskgit": "models.generator.evaluate:Params",
    "evaluate.depth": "models.depth.evaluate:Params",
}
RECIPES = [None, *sorted(path.stem for path in (ROOT / "models/recipes").glob("*.yaml"))]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_stage_can_read_its_section(tmp_path, recipe):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    parameters.apply(tmp_path, parameters.changes(ROOT, recipe, []))
    for section, place in SECTIONS.items():
        module, name = place.split(":")
        params.load(getattr(importlib.import_module(module), name), section, tmp_path / "params.yaml")


def test_every_section_of_the_parameters_belongs_to_a_stage():
    values = parameters.read(ROOT)
    read = {section.split(".")[0] for section in SECTIONS} | set(params.SHARED)
    assert set(values) == read
