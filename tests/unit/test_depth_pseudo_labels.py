"""Pseudo-labels on disk."""

import numpy as np
import pytest

from data.core.params import UserError
from models.depth import pseudo_labels

MAPS = np.random.default_rng(0).normal(5, 2, (5, 8, 8)).astype(np.float32)
KEYS = list("abcde")


def save(folder):
    folder.mkdir(exist_ok=True)
    rows = []
    for index in range(3):
        shard, some = folder / f"photos-0000{index}.tar", slice(2 * index, 2 * index + 2)
        shard.write_bytes(pseudo_labels.pack(KEYS[some], MAPS[some]))
        rows += pseudo_labels.rows(shard, "photos")
    pseudo_labels.write_index(folder, rows)


def test_labels_come_back_up_to_scale_and_shift_in_the_order_asked_for(tmp_path):
    save(tmp_path)
    found = pseudo_labels.read(tmp_path, "photos", ["d", "a"])
    for label, original in zip(found, MAPS[[3, 0]], strict=True):
        assert (label.min(), label.max()) == (0, 1)
        assert np.corrcoef(label.ravel(), original.ravel())[0, 1] == pytest.approx(1, abs=1e-6)


def test_the_same_labels_give_the_same_bytes(tmp_path):
    save(tmp_path / "one"), save(tmp_path / "two")
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_missing_label_names_the_picture(tmp_path):
    save(tmp_path)
    with pytest.raises(UserError, match="photos z"):
        pseudo_labels.read(tmp_path, "photos", ["a", "z"])


def test_a_corrupt_shard_is_named(tmp_path):
    save(tmp_path)
    shard = tmp_path / "photos-00001.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"photos-00001.tar: sample c"):
        pseudo_labels.read(tmp_path, "photos", KEYS)


def test_a_flat_map_is_stored_as_zeros():
    assert pseudo_labels.unit(np.full((2, 2), 3.0)).tolist() == [[0, 0], [0, 0]]
