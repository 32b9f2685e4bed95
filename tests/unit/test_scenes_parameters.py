"""Wrong parameters of the stage `scenes` give one clear line."""

import pytest

from data.params import UserError, load
from data.scenes.render import Parameters

GOOD = {"count": 20, "size": 32, "samples_per_pixel": 2, "held_out_share": 0.2, "per_shard": 8}


def parameters(tmp_path, **changes) -> Parameters:
    lines = [f"  {k}: {v}" for k, v in {**GOOD, **changes}.items()]
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\nscenes:\n" + "\n".join(lines) + "\n")
    return load(Parameters, "scenes", path)


def test_good_parameters_are_taken(tmp_path):
    assert parameters(tmp_path).count == 20


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", 9, "one scene of each class"),
        ("size", 40, "multiple of 16"),
        ("size", 0, "multiple of 16"),
        ("samples_per_pixel", 0, "at least 1"),
        ("held_out_share", 1.5, "between 0 and 1"),
        ("per_shard", 0, "at least 1"),
        ("cuont", 9, "did you mean 'count'"),
        ("size", "big", "must be a whole number"),
    ],
)
def test_a_bad_parameter_is_named_with_its_value(tmp_path, name, value, words):
    with pytest.raises(UserError, match=words) as caught:
        parameters(tmp_path, **{name: value})
    assert name in str(caught.value)
