"""What is composed depends on (seed, index, attempt) alone, and every class has its pieces and palettes."""

import numpy as np
import pytest

from data.scenes.grammar import CLASSES, NAMES, compose
from data.scenes.palettes import PALETTES, linear
from data.scenes.scene import MATERIALS


def same(a, b) -> bool:
    return a.camera == b.camera and all(
        np.array_equal(p.mesh.vertices, q.mesh.vertices) and np.array_equal(p.colour, q.colour)
        for p, q in zip(a.pieces, b.pieces, strict=True)
    )


def test_the_same_seed_and_index_give_the_same_scene():
    assert all(same(compose(7, i), compose(7, i)) for i in range(10))


def test_another_seed_index_or_attempt_gives_another_scene():
    scene = compose(7, 1)
    for other in (compose(8, 1), compose(7, 11), compose(7, 1, attempt=1)):
        assert scene.camera != other.camera


def test_there_are_ten_classes_and_each_has_at_least_three_palettes():
    assert len(NAMES) == 10
    assert set(PALETTES) == set(CLASSES)
    assert min(len(p) for p in PALETTES.values()) >= 3


@pytest.mark.parametrize("index", range(30))
def test_every_scene_is_made_of_finite_pieces_with_physical_colours(index):
    scene = compose(3, index)
    for piece in scene.pieces:
        assert piece.material in MATERIALS
        assert np.isfinite(piece.mesh.vertices).all()
        assert np.allclose(np.linalg.norm(piece.mesh.normals, axis=1), 1, atol=1e-6)
        assert piece.colour.min() >= 0
        assert piece.material == "lamp" or piece.colour.max() <= 1  # nothing reflects more than it receives


def test_a_scene_stays_small_enough_to_be_built_in_milliseconds():
    assert max(sum(len(p.mesh.faces) for p in compose(3, i).pieces) for i in range(20)) < 20_000


def test_colours_are_written_as_they_look_and_used_as_linear_light():
    assert np.allclose(linear("ffffff"), 1)
    assert linear("808080")[0] == pytest.approx(0.2158, abs=1e-3)
