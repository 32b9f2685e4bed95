"""The committed policy tells better releases from equal ones: a quick version of tests/bench/gates.py."""

from pathlib import Path

import pytest

from tests.bench.gates import calibrate

ROOT = Path(__file__).parents[2]
DRAWS = 200


@pytest.fixture(scope="module")
def lines():
    """Every kind of release, 200 times, with bootstraps of 500."""
    return list(calibrate(ROOT, DRAWS, resamples=500))


def test_equal_releases_are_promoted_in_five_percent_at_most(lines):
    equal = {line.family: line.passed for line in lines if line.kind == "equal"}
    assert set(equal) == {"images", "depth"}
    assert all(share <= 0.05 + 2.5 * (0.05 * 0.95 / DRAWS) ** 0.5 for share in equal.values()), equal


def test_a_release_that_is_better_by_the_margin_in_one_metric_is_promoted_in_four_of_five(lines):
    better = {line.kind: line.passed for line in lines if line.kind != "equal"}
    assert len(better) >= 4
    assert all(share >= 0.8 - 2.5 * (0.8 * 0.2 / DRAWS) ** 0.5 for share in better.values()), better
