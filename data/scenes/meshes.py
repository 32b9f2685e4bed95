"""Triangle meshes as plain values: closed-form solids with smooth or flat normals, z up, metres.

Colour lives on the vertices (see scene.py), so a solid needs no texture coordinates. Triangle counts are kept low:
the time to build a scene follows them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.core.elementary import cos, sin

Array = np.ndarray
Point = Sequence[float] | Array  # (3,), in profiles (2,)
Points = Sequence[Point] | Array  # a row of points


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: vertices (V, 3), unit normals (V, 3), faces (F, 3) counter-clockwise from outside."""

    vertices: Array
    normals: Array
    faces: Array

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        return replace(self, vertices=self.vertices + np.array([x, y, z]))

    def turned(self, degrees: float, axis: str = "z") -> Mesh:
        """Rotated about an axis through the origin, counter-clockwise seen from the axis' tip."""
        c, s = cos(np.radians(degrees)), sin(np.radians(degrees))
        i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]

        def turned(points: Array) -> Array:
            made = points.copy()
            made[:, i], made[:, j] = points[:, i] * c - points[:, j] * s, points[:, i] * s + points[:, j] * c
            return made

        return replace(self, vertices=turned(self.vertices), normals=turned(self.normals))

    def scaled(self, x: float, y: float, z: float) -> Mesh:
        """Stretched along the axes by positive factors; normals stay perpendicular."""
        factors = np.array([x, y, z])
        normals = self.normals / factors
        return replace(self, vertices=self.vertices * factors, normals=_unit(normals))


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh holding all triangles of several."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]])
    return Mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.normals for m in meshes]),
        np.concatenate([m.faces + start for m, start in zip(meshes, starts, strict=True)]),
    )


def polygon(corners: Points) -> Mesh:
    """A flat convex polygon, its corners counter-clockwise seen from the front."""
    points = np.asarray(corners, dtype=np.float64)
    normal = _unit(np.cross(points[1] - points[0], points[2] - points[0])[None])[0]
    fan = [[0, i, i + 1] for i in range(1, len(points) - 1)]
    return Mesh(points, np.tile(normal, (len(points), 1)), np.array(fan))


def box(width: float, depth: float, height: float) -> Mesh:
    """A box standing on z = 0, centred in x and y."""
    x, y, z = width / 2, depth / 2, height
    sides: list[Points] = [
        [(-x, -y, 0), (-x, y, 0), (x, y, 0), (x, -y, 0)],
        [(-x, -y, z), (x, -y, z), (x, y, z), (-x, y, z)],
        [(-x, -y, 0), (x, -y, 0), (x, -y, z), (-x, -y, z)],
        [(x, -y, 0), (x, y, 0), (x, y, z), (x, -y, z)],
        [(x, y, 0), (-x, y, 0), (-x, y, z), (x, y, z)],
        [(-x, y, 0), (-x, -y, 0), (-x, -y, z), (-x, y, z)],
    ]
    return joined([polygon(side) for side in sides])


def wedge(width: float, depth: float, height: float) -> Mesh:
    """A roof: triangular cross-section along x, ridge along y, standing on z = 0."""
    x, y, z = width / 2, depth / 2, height
    return joined(
        [
            polygon([(-x, -y, 0), (-x, y, 0), (x, y, 0), (x, -y, 0)]),
            polygon([(-x, -y, 0), (x, -y, 0), (0, -y, z)]),
            polygon([(x, y, 0), (-x, y, 0), (0, y, z)]),
            polygon([(x, -y, 0), (x, y, 0), (0, y, z), (0, -y, z)]),
            polygon([(-x, y, 0), (-x, -y, 0), (0, -y, z), (0, y, z)]),
        ]
    )


def lathe(profile: Points, segments: int = 24, crease: float = 50.0) -> Mesh:
    """A solid of revolution about z from (radius, height) points, outside on the right when walking along them.

    Corners of the profile sharper than `crease` degrees stay sharp.
    """
    points = np.asarray(profile, dtype=np.float64)
    step = np.diff(points, axis=0)
    across = _unit(np.stack([step[:, 1], -step[:, 0]], axis=1))  # outward normal of each stretch, (K-1, 2)
    inner = (across[:-1] * across[1:]).sum(axis=1) > cos(np.radians(crease))
    smooth = [False, *inner, False]  # at each point
    angles = np.linspace(0, 2 * np.pi, segments + 1)
    ring = np.stack([cos(angles), sin(angles)], axis=1)  # (S+1, 2)
    vertices: list[Array] = []
    normals: list[Array] = []
    faces: list[Array] = []
    for k, normal in enumerate(across):
        low = _unit((normal + across[k - 1])[None])[0] if smooth[k] else normal
        high = _unit((normal + across[k + 1])[None])[0] if smooth[k + 1] else normal
        base = len(vertices) * (segments + 1)
        for point, tilt in ((points[k], low), (points[k + 1], high)):
            vertices.append(np.column_stack([ring * point[0], np.full(segments + 1, point[1])]))
            normals.append(np.column_stack([ring * tilt[0], np.full(segments + 1, tilt[1])]))
        lower = base + np.arange(segments)
        upper = lower + segments + 1
        if points[k, 0] > 0:
            faces.append(np.column_stack([lower, lower + 1, upper + 1]))
        if points[k + 1, 0] > 0:
            faces.append(np.column_stack([lower, upper + 1, upper]))
    return Mesh(np.concatenate(vertices), np.concatenate(normals), np.concatenate(faces))


def ball(radius: float, rings: int = 16, segments: int = 28) -> Mesh:
    """A sphere around the origin."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, rings + 1)
    profile = np.column_stack([cos(angle), sin(angle)]) * radius
    profile[[0, -1], 0] = 0.0
    mesh = lathe(profile, segments, crease=90)
    return replace(mesh, normals=_unit(mesh.vertices))


def cylinder(radius: float, height: float, segments: int = 20) -> Mesh:
    """An upright closed cylinder standing on z = 0."""
    return lathe([(0, 0), (radius, 0), (radius, height), (0, height)], segments)


def cone(radius: float, height: float, segments: int = 14) -> Mesh:
    """An upright closed cone standing on z = 0."""
    return lathe([(0, 0), (radius, 0), (0, height)], segments)


def rod(start: Point, end: Point, radius: float, segments: int = 8) -> Mesh:
    """A straight open tube between two points."""
    return tube(np.array([start, end]), radius, segments)


def tube(points: Points, radius: float, segments: int = 8, closed: bool = False) -> Mesh:
    """An open tube of constant radius along a polyline."""
    path = np.asarray(points, dtype=np.float64)
    ahead = np.roll(path, -1, axis=0) - path
    behind = path - np.roll(path, 1, axis=0)
    if not closed:
        ahead[-1], behind[0] = behind[-1], ahead[0]
    direction = _unit(_unit(ahead) + _unit(behind))
    helper = np.eye(3)[np.abs(direction).mean(axis=0).argmin()]
    side = _unit(np.cross(direction, helper))
    other = np.cross(direction, side)
    angles = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    normals = side[:, None] * cos(angles)[:, None] + other[:, None] * sin(angles)[:, None]  # (P, S, 3)
    vertices = path[:, None] + radius * normals
    count = len(path)
    i, j = np.meshgrid(np.arange(count if closed else count - 1), np.arange(segments), indexing="ij")
    a, b = i * segments + j, i * segments + (j + 1) % segments
    c, d = (i + 1) % count * segments + (j + 1) % segments, (i + 1) % count * segments + j
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return Mesh(vertices.reshape(-1, 3), normals.reshape(-1, 3), faces)


def hoop(radius: float, thickness: float, segments: int = 40) -> Mesh:
    """A ring in the x-z plane around the origin."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    circle = np.column_stack([cos(angle), np.zeros(segments), sin(angle)]) * radius
    return tube(circle, thickness, 8, closed=True)


def surface(points: Array) -> Mesh:
    """A smooth sheet over a grid of points (R, C, 3); its front is columns x rows (up, for x by columns, y by rows)."""
    rows, columns = points.shape[:2]
    down, right = np.gradient(points, axis=0), np.gradient(points, axis=1)
    normals = _unit(np.cross(right, down).reshape(-1, 3))
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a, b = i * columns + j, i * columns + j + 1
    c, d = (i + 1) * columns + j + 1, (i + 1) * columns + j
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    return Mesh(points.reshape(-1, 3), normals, faces)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True)), 1e-12)
