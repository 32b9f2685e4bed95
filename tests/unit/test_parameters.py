"""A run's parameters: recipes and --set over params.yaml, with names and types checked."""

import json
from contextlib import nullcontext

import pytest

from data.core import params
from data.core.params import UserError
from flows.pipeline import parameters
from flows.pipeline.graph import Stage
from flows.pipeline.plan import Plan, Step

PARAMS = """\
seed: 1
threads: 1  # bytes depend on it
photos: {source: builtin, share: 0.5}
generator:
  maskgit: {lr: 0.001, steps: 100, betas: [0.9, 0.95], ema: true, resume: null}
depth:
  teacher: {steps: 40}
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    recipes = tmp_path / "models" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "evening.yaml").write_text(
        "generator: {maskgit: {steps: 900, lr: 3e-4}}\ndepth: {teacher: {steps: 50}}\n"
    )
    return tmp_path


def set_(root, *assignments, recipe=None):
    return parameters.changes(root, recipe, assignments)


def test_a_value_is_read_in_the_type_that_it_has_now(root):
    assert set_(root, "generator.maskgit.lr=1e-3", "generator.maskgit.steps=200") == {"generator.maskgit.steps": 200}
    assert set_(root, "generator.maskgit.lr=2") == {"generator.maskgit.lr": 2.0}
    assert set_(root, "photos.source=0123") == {"photos.source": "0123"}
    assert set_(root, "generator.maskgit.ema=false") == {"generator.maskgit.ema": False}
    assert set_(root, "generator.maskgit.betas=[0.8, 1]") == {"generator.maskgit.betas": [0.8, 1]}
    assert set_(root, "generator.maskgit.resume=weights") == {"generator.maskgit.resume": "weights"}


def test_a_recipe_lies_over_the_file_and_single_values_over_the_recipe(root):
    changed = set_(root, "depth.teacher.steps=60", recipe="evening")
    assert changed == {"generator.maskgit.steps": 900, "generator.maskgit.lr": 3e-4, "depth.teacher.steps": 60}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("generator.maskgit.stepps=3", "did you mean 'generator.maskgit.steps'?"),
        ("generatr.maskgit.lr=3", "did you mean 'generator.maskgit.lr'?"),
        ("ema=true", "did you mean 'generator.maskgit.ema'?"),
        ("generator.maskgit.steps=many", "generator.maskgit.steps must be a whole number (it is 100), not 'many'"),
        ("generator.maskgit.steps=1.5", "must be a whole number"),
        ("generator.maskgit.lr=fast", "must be a number"),
        ("generator.maskgit.ema=1", "must be true or false"),
        ("generator.maskgit.betas=0.9", "must be a list"),
        ("generator.maskgit.betas=[a, b]", "must be a list"),
        ("generator.maskgit=3", "generator.maskgit is a section; set a value in it"),
        ("seed", "write it as key=value"),
        ("=3", "write it as key=value"),
    ],
)
def test_a_wrong_assignment_is_refused_with_the_next_step(root, assignment, said):
    with pytest.raises(UserError) as error:
        set_(root, assignment)
    assert said in str(error.value)


def test_an_unknown_recipe_names_the_near_one(root):
    with pytest.raises(UserError, match="no recipe 'evning'; did you mean 'evening'?"):
        set_(root, recipe="evning")


def test_a_recipe_with_an_unknown_or_mistyped_value_names_its_file(root):
    recipe = root / "models" / "recipes" / "bad.yaml"
    recipe.write_text("generator: {samba: {steps: 3}}\n")
    with pytest.raises(UserError, match=r"models/recipes/bad.yaml: generator.samba.steps is not in params.yaml"):
        set_(root, recipe="bad")
    recipe.write_text("generator: {maskgit: 3}\n")
    with pytest.raises(UserError, match=r"models/recipes/bad.yaml: generator.maskgit is a section"):
        set_(root, recipe="bad")
    recipe.write_text("seed: {a: 1}\n")
    with pytest.raises(UserError, match=r"models/recipes/bad.yaml: seed must be a whole number"):
        set_(root, recipe="bad")


def test_writing_keeps_comments_and_order(root):
    parameters.apply(root, set_(root, "generator.maskgit.steps=7", "seed=2"))
    text = (root / "params.yaml").read_text()
    assert text.startswith("seed: 2\nthreads: 1  # bytes depend on it\n")
    assert parameters.read(root)["generator"]["maskgit"]["steps"] == 7


def test_the_digest_follows_the_file(root):
    before = parameters.digest(root)
    parameters.apply(root, {"seed": 2})
    assert parameters.digest(root) != before


def test_a_small_number_is_read_again_as_it_was_set(root):
    parameters.apply(root, set_(root, "generator.maskgit.lr=0.00001"))
    assert "lr: 1e-05" in (root / "params.yaml").read_text()
    assert params.read(root / "params.yaml")["generator"]["maskgit"]["lr"] == 0.00001


@pytest.mark.parametrize("text", ["yes", "1:30", "010", "2026-11-27", "1e5", "~", "", " a", "a: b", "ü", "#", "<<"])
def test_any_text_is_read_again_as_it_was_set(root, text):
    parameters.apply(root, {"photos.source": text})
    assert parameters.read(root)["photos"]["source"] == text


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999", "1_0", "010", "0x10", "nan"])
def test_a_number_that_is_none_or_is_written_oddly_is_refused(root, value):
    with pytest.raises(UserError, match=r"--set: generator.maskgit.lr must be a"):
        set_(root, f"generator.maskgit.lr={value}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"generator: {maskgit: {steps: 1}}\ngenerator: {maskgit: {lr: 1.0}}\n", "bad.yaml:2: 'generator' is there"),
        (b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "bad.yaml:1: anchors and aliases"),
        (b"seed: 2 # \xe9\n", "bad.yaml:1: byte 0xe9 is not UTF-8"),
        (b"{a: " * 5000 + b"1" + b"}" * 5000, "bad.yaml:1: sections and lists lie deeper"),
    ],
)
def test_a_recipe_that_is_damaged_is_one_line(root, content, said):
    (root / "models" / "recipes" / "bad.yaml").write_bytes(content)
    with pytest.raises(UserError) as error:
        set_(root, recipe="bad")
    assert said in str(error.value)


def test_a_value_that_is_no_text_is_refused(root):
    with pytest.raises(UserError, match=r"--set photos.source: the value is not UTF-8"):
        set_(root, "photos.source=/pictures/\udcff")


def test_the_code_of_the_commit_says_what_a_parameter_may_be(root):
    parameters.check(root)  # a commit of before, or of another project: its stages say it
    (root / "models" / "sections.py").write_text(
        "import sys\nsys.exit('error: params.yaml: seed must be even, not 1')\n"
    )
    with pytest.raises(UserError, match=r"^params.yaml: seed must be even, not 1$"):
        parameters.check(root)
    (root / "models" / "sections.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match="models/sections.py of this commit cannot be run: ZeroDivisionError"):
        parameters.check(root)


def test_parameters_that_a_stage_asks_for_are_there(root):
    asks = Stage("train", "python train.py", params=("seed", "generator.maskgitt"))
    with pytest.raises(UserError, match=r"dvc.yaml: stage 'train': generator.maskgitt is not in params.yaml; did you"):
        parameters.serve(root, [asks], Plan((Step("train", "run"),)))


@pytest.mark.parametrize(("action", "refused"), [("run", True), ("restore", False), ("current", False)])
def test_a_stage_is_not_started_as_one_node_of_several(root, action, refused):
    with (root / "params.yaml").open("a") as file:
        file.write("accelerate: {devices: 1, nodes: 2}\n")
    stage = Stage("proxy", "python train.py", params=("accelerate",))
    with pytest.raises(UserError, match="proxy would wait for the others") if refused else nullcontext():
        parameters.serve(root, [stage], Plan((Step("proxy", action),)))


def test_a_stage_of_given_pictures_is_told_where_they_are_and_no_other_is(tmp_path):
    sets = {"birds": {"source": "s3://pictures/birds"}}
    (tmp_path / "params.yaml").write_text(json.dumps({"images": {"sets": sets}}))
    assert parameters.source_of(tmp_path, "images@birds") == {"REMINT_PICTURES": "s3://pictures/birds"}
    assert parameters.source_of(tmp_path, "tokenizer") == parameters.source_of(tmp_path, "images@fish") == {}
