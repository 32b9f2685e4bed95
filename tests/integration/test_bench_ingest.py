"""The bench of arrivals, small: each photograph once, full shards uploaded once, and the figures are there."""

from pathlib import Path

import pytest

from tests.bench import ingest

pytestmark = pytest.mark.integration


@pytest.mark.soak
def test_batches_that_arrive_upload_only_new_shards(tmp_path: Path) -> None:
    said: list[str] = []
    found = ingest.measure(tmp_path, count=60, batches=3, size=(120, 90), per_shard=100, told=said.append)
    assert len(said) == 3
    assert found["doubles"] == 0
    assert found["kept"] == 60 + 10  # with those that were there before
    assert [one["arrived"] for one in found["batches"]] == [20, 20, 20]
    assert found["shards"] > 3
    assert found["shards_uploaded"] <= found["shards"] + 2  # the last one of a batch was not full: it is sent again
    assert found["taken_in_per_core"] > 0
    assert found["memory_last_mb"] < found["memory_first_mb"] + 200
