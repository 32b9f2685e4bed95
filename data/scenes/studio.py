"""What several classes share: small random choices, backdrops, skies, cameras and simple furniture parts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from data.core.elementary import cos, sin
from data.scenes.camera import Camera
from data.scenes.meshes import Mesh, joined, surface
from data.scenes.palettes import Palette
from data.scenes.scene import Piece, Sky

Random = np.random.Generator
WHITE = np.array([0.85, 0.84, 0.82])


def between(random: Random, low: float, high: float) -> float:
    return float(random.uniform(low, high))


def view(
    random: Random,
    position: Sequence[float],
    target: Sequence[float],
    field_of_view: float,
    sway: Sequence[float] = (0.5, 0.25, 0.2),
) -> Camera:
    """A camera near a class' usual place: swaying by up to `sway` metres in x, y, z, its target by a fifth of that."""
    shift = random.uniform(-1, 1, 3) * np.asarray(sway)
    x, y, z = np.asarray(position) + shift
    a, b, c = np.asarray(target) + 0.2 * random.uniform(-1, 1, 3) * np.asarray(sway)
    angle = field_of_view * between(random, 0.97, 1.03)
    return Camera((float(x), float(y), float(z)), (float(a), float(b), float(c)), angle)


def daylight(random: Random, palette: Palette, sun: float = 1.9, warmth: float = 0.12, sky: float = 1.25) -> Sky:
    """The palette's sky with a sun from over one of the viewer's shoulders."""
    side = -1 if random.random() < 0.5 else 1
    towards = direction((side * between(random, 0.5, 0.9), -between(random, 0.4, 0.8), between(random, 0.8, 1.2)))
    colour = sun * np.array([1 + warmth, 1.0, 1 - warmth])
    top, horizon = palette.sky
    below = 0.35 * palette.floor
    return Sky(sky * top, sky * horizon, below, colour, towards)


def direction(vector: Sequence[float]) -> tuple[float, float, float]:
    """The unit vector along one."""
    x, y, z = vector
    length = math.sqrt(x * x + y * y + z * z)
    return x / length, y / length, z / length


def backdrop(
    floor: np.ndarray,
    wall: np.ndarray,
    back: float,
    glow: np.ndarray | None = None,
    top: float = 9.0,
    bend: float = 0.5,
) -> list[Piece]:
    """A studio: floor and back wall (y = back) joined by a soft bend; the wall fades from `wall` below to `glow`."""
    turn = np.linspace(0, np.pi / 2, 7)
    y = np.concatenate([[-9.0, back - bend - 3], back - bend + bend * sin(turn), np.full(6, back)])
    z = np.concatenate([[0.0, 0.0], bend - bend * cos(turn), np.linspace(bend, top, 7)[1:]])
    x = np.array([-14.0, 14.0])
    points = np.stack(np.broadcast_arrays(x[None, :], y[:, None], z[:, None]), axis=-1)
    mesh = surface(points)
    height = mesh.vertices[:, 2:3]
    upper = wall if glow is None else wall + (glow - wall) * np.clip(height / 4.5, 0, 1)
    mix = np.clip(height / bend, 0, 1)
    colour = np.where(mesh.vertices[:, 1:2] <= back - bend, floor, floor + (upper - floor) * mix)
    return [Piece(mesh, "matte", colour)]


def painted(mesh: Mesh | Sequence[Mesh], colour: np.ndarray, material: str = "matte") -> Piece:
    """A piece of one colour from one or several meshes."""
    return Piece(mesh if isinstance(mesh, Mesh) else joined(mesh), material, np.asarray(colour))


def spread(
    random: Random, radii: Sequence[float] | np.ndarray, width: float, near: float, far: float, gap: float = 0.12
) -> list[tuple[float, float]]:
    """Places (x, y) on the floor for discs that do not touch each other; infinite for a disc without room."""
    placed: list[tuple[float, float, float]] = []
    for radius in radii:
        for _ in range(60):
            x, y = between(random, -width, width), between(random, near, far)
            if all(math.sqrt((x - a) ** 2 + (y - b) ** 2) > radius + r + gap for a, b, r in placed):
                placed.append((x, y, radius))
                break
        else:
            placed.append((np.inf, np.inf, 0.0))
    return [(x, y) for x, y, _ in placed]


def shuffled(random: Random, colours: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [colours[i] for i in random.permutation(len(colours))]
