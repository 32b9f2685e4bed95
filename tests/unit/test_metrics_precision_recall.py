"""Precision and recall by nearest neighbours, on sets small enough to draw."""

import pytest
import torch

from models.metrics.precision_recall import precision_recall


def line(*places):
    return torch.tensor(places, dtype=torch.float32)[:, None]


def test_a_set_covers_itself():
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    assert precision_recall(points, points) == (1.0, 1.0)


def test_by_hand_on_a_line():
    # real 0 1 2: with k = 1 every ball reaches 1, so [-1, 3] is covered. Generated 2.5 2.7 9: balls of .2, .2 and 6.3
    # cover [2.3, 2.9] and [2.7, 15.3], which none of the real points is in.
    precision, recall = precision_recall(line(0, 1, 2), line(2.5, 2.7, 9), k=1)
    assert precision == pytest.approx(2 / 3)
    assert recall == 0.0


def test_one_good_picture_again_and_again_is_precise_but_has_no_recall():
    real = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    precision, recall = precision_recall(real, real[:1].expand(50, 2))
    assert precision == 1.0
    assert recall <= 1 / 50


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="3 nearest neighbours need more than 3 rows, got 3"):
        precision_recall(line(0, 1, 2), line(0, 1, 2, 3))
