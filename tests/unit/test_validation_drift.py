"""Drift: the population stability index between two versions of the data."""

import json

import numpy as np
import pandas as pd
import pytest

from data.core.params import UserError
from data.validate import drift


def version(brightness, contrast=0.1, n=1000, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "scenes": pd.DataFrame(
            {
                "brightness": np.clip(rng.normal(brightness, 0.1, n), 0, 1),
                "contrast": np.clip(rng.normal(contrast, 0.02, n), 0, 0.5),
            }
        )
    }


def compared(now, before):
    moved = drift.compare(drift.statistics(now), drift.statistics(before))
    return dict(zip(moved["key"], moved["psi"], strict=True))


def test_a_hand_computed_index():
    before, now = [0] * 100, [0] * 100
    before[10], before[90] = 5000, 5000
    now[10], now[90] = 2500, 7500
    plain = (0.25 - 0.5) * np.log(0.25 / 0.5) + (0.75 - 0.5) * np.log(0.75 / 0.5)  # 0.2747
    chance = 1 * (1 / 10_000 + 1 / 10_000)
    assert drift.stability_index(now, before) == pytest.approx(plain - chance, abs=1e-4)


def test_the_same_population_drawn_again_does_not_drift_even_when_small():
    for n in (60, 500, 5000):
        for seed in range(5):
            found = compared(version(0.5, n=n, seed=seed), version(0.5, n=n, seed=seed + 100))
            assert max(found.values()) < 0.25
    assert max(compared(version(0.5), version(0.5)).values()) == 0


def test_a_shift_of_one_column_is_seen_in_that_column_alone():
    found = compared(version(0.6, seed=1), version(0.5, seed=2))
    assert found["scenes.brightness"] > 0.5
    assert found["scenes.contrast"] < 0.1


def test_data_sets_that_only_one_version_has_are_left_out():
    assert drift.compare(drift.statistics(version(0.5)), {}).empty


def test_statistics_survive_the_file(tmp_path):
    found = drift.statistics(version(0.5))
    (tmp_path / "statistics.json").write_text(json.dumps(found))
    assert drift.read(tmp_path / "statistics.json") == found


@pytest.mark.parametrize("content", ["", "[]", '{"scenes": {"brightness": [1]}}', '{"scenes": 3}'])
def test_a_file_that_is_no_statistics_is_the_users_error(tmp_path, content):
    (tmp_path / "s.json").write_text(content)
    with pytest.raises(UserError, match="is no statistics.json"):
        drift.read(tmp_path / "s.json")


def test_a_missing_previous_version_names_the_parameter(tmp_path):
    with pytest.raises(UserError, match="validate.previous.*does not exist"):
        drift.read(tmp_path / "gone.json")
