"""Solids are closed, face outwards, and keep their normals under transformation."""

import numpy as np
import pytest

from data.scenes import meshes
from data.scenes.meshes import Mesh

SOLIDS = {
    "box": meshes.box(1, 2, 3),
    "wedge": meshes.wedge(1, 2, 1),
    "ball": meshes.ball(0.7),
    "cylinder": meshes.cylinder(0.5, 2),
    "cone": meshes.cone(0.5, 1),
    "hoop": meshes.hoop(1.0, 0.1),
    "vase": meshes.lathe([(0, 0), (0.5, 0), (0.3, 1), (0, 1)]),
}


def volume(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("name", SOLIDS)
def test_faces_of_a_solid_turn_outwards_as_its_normals_do(name):
    mesh = SOLIDS[name]
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    sides = np.einsum("ij,ij->i", across, mesh.normals[mesh.faces].mean(axis=1))
    assert (sides > 0).all()
    assert volume(mesh) > 0
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1)


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"),
    [("box", 6, 1e-9), ("wedge", 1, 1e-9), ("ball", 4 / 3 * np.pi * 0.7**3, 0.05), ("hoop", 2 * np.pi**2 * 0.01, 0.03)],
)
def test_volumes_are_those_of_geometry(name, expected, tolerance):
    assert volume(SOLIDS[name]) == pytest.approx(expected, abs=tolerance)


def test_turning_and_moving_keep_the_volume_and_scaling_multiplies_it():
    mesh = SOLIDS["wedge"].turned(30, "x").turned(50).moved(3, -2, 1)
    assert volume(mesh) == pytest.approx(1)
    assert volume(mesh.scaled(2, 3, 0.5)) == pytest.approx(3)


def test_normals_stay_perpendicular_to_a_stretched_surface():
    mesh = meshes.box(1, 1, 1).turned(45, "y").scaled(1, 1, 3)
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    across = np.cross(b - a, c - a)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    assert np.allclose(across, mesh.normals[mesh.faces[:, 0]])


def test_a_joined_mesh_holds_the_triangles_of_all():
    both = meshes.joined([meshes.box(1, 1, 1), meshes.box(2, 1, 1).moved(5)])
    assert volume(both) == pytest.approx(3)


def test_a_sheet_faces_up_when_columns_run_along_x_and_rows_along_y():
    x, y = np.meshgrid(np.linspace(0, 1, 3), np.linspace(0, 1, 4))
    sheet = meshes.surface(np.stack([x, y, 0 * x], axis=-1))
    assert np.allclose(sheet.normals, [0, 0, 1])
