"""The bench of many parts, small: each is asked for once, taken once and forgotten; all are looked at together."""

from pathlib import Path

import pytest

from tests.bench import scale

pytestmark = [pytest.mark.integration, pytest.mark.slow]
PARTS = 50


def test_parts_are_ordered_looked_at_together_and_forgotten(tmp_path: Path) -> None:
    found = scale.measure(tmp_path, PARTS, at_once=16, seconds=0.2)
    requests = found["requests"]
    assert found["left"] == 0
    assert requests["bucket create"] <= (PARTS + 2) / PARTS  # with the whole stage, and what its end says
    assert requests["bucket read"] <= 1.5
    assert requests["bucket delete"] <= 2 * (PARTS + 1) / PARTS
    assert requests["prefect"] <= 1 + 5 * found["seconds"] / 2 / PARTS + 0.5  # one each, and a few every two seconds
    assert found["cpu_ms"] < 200  # 20 to 40 on a quiet machine, where starting up is part of it
