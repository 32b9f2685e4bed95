"""Depth measures against cases worked out by hand."""

import numpy as np
import pytest

from models.metrics import depth

TRUTH = np.array([[1.0, 0.5], [0.25, 0.0]])  # depths 1, 2, 4, and one pixel without


def test_alignment_undoes_any_scale_and_shift_and_looks_at_valid_pixels_only():
    prediction = np.array([[7.0, 5.0], [4.0, 1000.0]])  # 4 * truth + 3, and nonsense where nothing is known
    aligned = depth.align(prediction, TRUTH, TRUTH > 0)
    assert aligned[TRUTH > 0] == pytest.approx(TRUTH[TRUTH > 0])


def test_alignment_is_the_least_squares_line():
    # x = 0, 1, 2 against y = 0, 1, 0: the best line is flat at 1/3
    aligned = depth.align(np.array([[0.0, 1.0, 2.0]]), np.array([[0.0, 1.0, 0.0]]), np.ones((1, 3), bool))
    assert aligned == pytest.approx(np.full((1, 3), 1 / 3))


def test_a_flat_prediction_becomes_the_mean_of_the_truth():
    aligned = depth.align(np.full((2, 2), 9.0), TRUTH, TRUTH > 0)
    assert aligned == pytest.approx(np.full((2, 2), 1.75 / 3))


def test_errors_of_three_pixels_by_hand():
    aligned = np.array([[1.0, 0.625], [0.5, 0.0]])  # depths 1, 1.6, 2 where 1, 2, 4 are right
    found = depth.errors(aligned, TRUTH)
    assert found["abs_rel"] == pytest.approx((0 + 0.4 / 2 + 2 / 4) / 3)
    assert found["delta1"] == pytest.approx(1 / 3)  # ratios 1, 1.25 (not below 1.25), 2
    assert found["rmse"] == pytest.approx(((0 + 0.4**2 + 2**2) / 3) ** 0.5)


def test_disparities_near_or_below_zero_count_as_the_farthest_depth():
    found = depth.errors(np.array([[-0.3]]), np.array([[0.5]]), farthest=20)
    assert found["abs_rel"] == pytest.approx((20 - 2) / 2)


def test_the_best_plane_of_a_tilted_plane_is_itself():
    rows, columns = np.mgrid[:4, :5]
    truth = 0.2 + 0.1 * rows + 0.02 * columns
    assert depth.plane(truth, truth > 0) == pytest.approx(truth)


def test_the_best_plane_of_a_step_by_hand():
    # y = 0, 0, 1, 1 over x = 0..3: slope 2/5, through the mean (1.5, 0.5)
    truth = np.array([[0.0, 0.0, 1.0, 1.0]])
    assert depth.plane(truth, np.ones((1, 4), bool)) == pytest.approx(np.array([[-0.1, 0.3, 0.7, 1.1]]))


def test_pairs_in_the_right_order_score_100_and_in_the_wrong_order_0():
    assert depth.pair_accuracy(TRUTH * 3 + 1, TRUTH, seed=0) == 100
    assert depth.pair_accuracy(-TRUTH, TRUTH, seed=0) == 0
    assert depth.pair_accuracy(np.ones((2, 2)), TRUTH, seed=0) == 0  # a tie is wrong


def test_pairs_follow_the_seed_and_count_by_hand():
    truth = np.array([[1.0, 0.9, 0.5]])  # 1.0 and 0.9 are too close to ask about
    prediction = np.array([[1.0, 0.2, 0.5]])  # 0.9 against 0.5 is wrong
    first, second = np.random.default_rng(4).choice(3, size=(2, depth.PAIRS))
    pairs = [tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)]
    right, wrong = pairs.count((0, 2)), pairs.count((1, 2))
    assert depth.pair_accuracy(prediction, truth, seed=4) == pytest.approx(100 * right / (right + wrong))


def test_a_picture_without_a_clear_pair_has_no_pair_accuracy():
    assert np.isnan(depth.pair_accuracy(np.ones((2, 2)), np.full((2, 2), 0.5), seed=0))
    assert np.isnan(depth.pair_accuracy(np.ones((2, 2)), np.zeros((2, 2)), seed=0))


def test_every_measure_is_declared_with_its_direction():
    from models.metrics import METRICS

    rows = dict(depth.scores(TRUTH * 2, TRUTH, seed=0))
    assert set(rows) == {"abs_rel", "delta1", "rmse", "pair_accuracy"}
    assert {METRICS[name].better for name in ("abs_rel", "rmse")} == {"lower"}
    assert {METRICS[name].better for name in ("delta1", "pair_accuracy")} == {"higher"}
