"""params.yaml and every recipe over it: each stage must be able to read its section."""

import importlib
import re
from pathlib import Path

import pytest

from data.core import params
from flows.pipeline import parameters
from models import sections

ROOT = Path(__file__).parents[2]
RECIPES = [None, *sorted(path.stem for path in (ROOT / "models/recipes").glob("*.yaml"))]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_stage_can_read_its_section(tmp_path, recipe):
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    parameters.apply(tmp_path, parameters.changes(ROOT, recipe, []))
    parameters.check(tmp_path)
    sections.check(tmp_path / "params.yaml")


def test_every_section_of_the_parameters_belongs_to_a_stage_or_to_the_gates():
    values = parameters.read(ROOT)
    assert set(values) == {name.split(".")[0] for name in sections.SECTIONS} | set(params.SHARED) | {
        "policy",
        "pictures",
    }


def test_every_section_is_read_by_a_stage_as_the_type_that_is_checked():
    """A stage's module names the class and the section in one call: both are compared with the table."""
    called = re.compile(r"(?:params|learning)\.load\((\w+), f?\"([a-z.]+)")
    found = {}
    for path in [*(ROOT / "data").rglob("*.py"), *(ROOT / "models").rglob("*.py")]:
        for cls, section in called.findall(path.read_text()):
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            found[f"{section}*" if section.endswith(".") else section] = getattr(module, cls)
    # a generator's kind names its own, see models.generator.kinds
    assert found == {name: cls for name, cls in sections.SECTIONS.items() if name != "generator.*"}
