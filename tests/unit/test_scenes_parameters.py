"""Wrong parameters of the stage `scenes` give one clear line."""

import pytest

from data.core.params import UserError, load
from data.scenes.grammar import NAMES
from data.scenes.params import CLASSES, Scenes

GOOD = {"count": 20, "size": 32, "samples_per_pixel": 2, "held_out_share": 0.2, "per_shard": 8}


def parameters(tmp_path, **changes) -> Scenes:
    lines = [f"  {k}: {v}" for k, v in {**GOOD, **changes}.items()]
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\nscenes:\n" + "\n".join(lines) + "\n")
    return load(Scenes, "scenes", path)


def test_good_parameters_are_taken(tmp_path):
    assert parameters(tmp_path).count == 20


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", 9, "one scene of each class"),
        ("size", 40, "multiple of 16"),
        ("size", 0, "at least 16"),
        ("samples_per_pixel", 0, "at least 1"),
        ("held_out_share", 1.5, "must be above 0 and below 1"),
        ("held_out_share", 0.01, "nothing to hold out"),
        ("held_out_share", 0.99, "nothing to train on"),
        ("per_shard", 0, "at least 1"),
        ("cuont", 9, "did you mean 'count'"),
        ("size", "big", "must be a whole number"),
    ],
)
def test_a_bad_parameter_is_named_with_its_value(tmp_path, name, value, words):
    with pytest.raises(UserError, match=words) as caught:
        parameters(tmp_path, **{name: value})
    assert name in str(caught.value)


def test_there_is_a_scene_of_each_class():
    assert len(NAMES) == CLASSES
