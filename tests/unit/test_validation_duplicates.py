"""Near-duplicates: the distance of each held-out picture to the nearest training picture."""

import numpy as np
import pandas as pd

from data.validate import duplicates


def frame(*rows):
    return pd.DataFrame(rows, columns=["key", "split", "dhash"])


def test_a_twin_is_found_with_its_distance_and_key():
    found = duplicates.distances(
        frame(
            ("a", "train", "00000000000000ff"),
            ("b", "train", "ffffffffffffffff"),
            ("c", "val", "00000000000000f0"),
            ("d", "val", "ffffffffffffffff"),
        )
    )
    assert found["duplicate_distance"].tolist() == [64, 64, 4, 0]
    assert found["nearest_key"].tolist() == ["", "", "a", "b"]


def test_without_training_pictures_nothing_has_a_twin():
    found = duplicates.distances(frame(("a", "val", "0" * 16), ("b", "val", "0" * 16)))
    assert found["duplicate_distance"].tolist() == [64, 64]


def test_batches_of_rows_agree_with_a_plain_loop():
    rng = np.random.default_rng(0)
    rows = [(str(i), "val" if i % 2 else "train", rng.bytes(8).hex()) for i in range(1200)]  # more than two batches
    found = duplicates.distances(frame(*rows))
    train = [int(h, 16) for _, split, h in rows if split == "train"]
    for i in (1, 599, 1199):
        assert found["duplicate_distance"][i] == min((int(rows[i][2], 16) ^ other).bit_count() for other in train)
