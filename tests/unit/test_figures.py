"""Charts drawn with Pillow: the picture says what the numbers say."""

import numpy as np
import pytest

from models.core import figures
from models.tokenizer.evaluate import histogram


def bars(image):
    """Height in pixels of the blue bar in each column that has one."""
    blue = (np.asarray(image) == figures.BAR).all(-1)
    return blue.sum(0)[blue.any(0)]


def test_a_bar_is_as_high_as_its_value_and_as_wide_as_the_others():
    heights = bars(figures.ranked(np.array([40.0, 20.0, 10.0, 0.0]), "t", "x", "y", (-5.0, "")))
    assert len(heights) == 3 * 160
    assert heights[80] == pytest.approx(260, abs=2)
    assert heights[240] == pytest.approx(130, abs=2)
    assert heights[400] == pytest.approx(65, abs=2)


def test_the_codebook_is_drawn_most_used_first_with_its_numbers_in_words():
    counts = np.array([0, 5, 1, 9, 0, 2])
    drawn = bars(histogram(counts))
    assert (np.diff(drawn.astype(int)) <= 1).all()  # the dashed line takes a pixel from a bar
    assert len(drawn) == 4 * (640 // 6)
    assert np.array_equal(histogram(counts), histogram(counts[::-1]))
    assert not np.array_equal(histogram(counts), histogram(np.array([0, 5, 1, 9, 1, 2])))


@pytest.mark.parametrize(("highest", "step"), [(0.73, 0.2), (100.0, 20.0), (10.0, 2.0), (3.1, 1.0), (0.05, 0.01)])
def test_axis_marks_are_round(highest, step):
    assert figures.tick(highest) == pytest.approx(step)
