"""Classes under the open sky: columns, terrain, city."""

from __future__ import annotations

import numpy as np

from data.core.elementary import cos, exp, sin
from data.scenes.meshes import Mesh, ball, box, cone, cylinder, joined, lathe, polygon, surface
from data.scenes.palettes import Palette
from data.scenes.scene import Piece, Scene
from data.scenes.studio import Random, between, daylight, painted, shuffled, view


def columns(random: Random, palette: Palette) -> Scene:
    """A temple: two rows of columns under beams, seen from between or beside them, closed by a hedge."""
    stone, (trim, hedge) = palette.wall, palette.accents
    ground = polygon([(-40, -10, 0), (40, -10, 0), (40, 45, 0), (-40, 45, 0)])
    made = [painted(ground, palette.floor)]
    radius, tall = between(random, 0.3, 0.4), between(random, 2.9, 3.5)
    half, pitch, count = between(random, 1.5, 1.9), between(random, 1.9, 2.3), int(random.integers(4, 6))
    ends = [i * pitch - 0.4 for i in range(count)]
    drums = [_column(radius, tall).moved(s * half, y) for s in (-1, 1) for y in ends]
    made.append(painted(drums, stone))
    length = ends[-1] - ends[0] + 1.2
    beams = [box(0.85, length, 0.55).moved(s * half, (ends[0] + ends[-1]) / 2, tall) for s in (-1, 1)]
    made.append(painted([*beams, box(2 * half + 0.85, 0.85, 0.55).moved(0, ends[-1], tall)], stone))
    path = polygon([(-0.9, -10, 0.01), (0.9, -10, 0.01), (0.9, 45, 0.01), (-0.9, 45, 0.01)])
    made.append(painted(path, trim))
    row = box(90, 1.5, between(random, 1.9, 2.6)).moved(0, 19)  # closes the view before the horizon
    made.append(painted(row, hedge))
    camera = view(random, (0, -4.6, 1.6), (0, 3.0, 1.75), 52, sway=(1.6, 0.3, 0.3))
    return Scene(tuple(made), camera, daylight(random, palette, sun=2.3), palette.name)


def _column(radius: float, tall: float) -> Mesh:
    shaft = lathe([(radius * 1.05, 0.25), (radius, tall * 0.5), (radius * 0.85, tall - 0.3)], 18)
    base, head = box(radius * 3, radius * 3, 0.25), box(radius * 2.9, radius * 2.9, 0.2).moved(z=tall - 0.2)
    bell = lathe([(radius * 0.85, tall - 0.4), (radius * 1.3, tall - 0.2)], 18)
    return joined([shaft, base, head, bell])


def terrain(random: Random, palette: Palette) -> Scene:
    """Hills to a mountain on the skyline, a lake, and a few trees close by."""
    water, leaf, _ = palette.accents
    x, y = np.meshgrid(np.linspace(-20, 20, 44), np.linspace(-6, 26, 40))
    height = _hills(random, x, y)
    points = np.stack([x, y, height], axis=-1)
    land = surface(points)
    made = [Piece(land, "matte", _ground_colour(land, palette))]
    lake = polygon([(-60, -8, 0), (60, -8, 0), (60, 60, 0), (-60, 60, 0)])
    made.append(painted(lake, water, "gloss"))
    made += _trees(random, points, leaf)
    camera = view(random, (0, -6.0, 2.9), (0, 6.0, 1.9), 50, sway=(0.8, 0.2, 0.3))
    return Scene(tuple(made), camera, daylight(random, palette, sun=2.3), palette.name)


def _trees(random: Random, land: np.ndarray, leaf: np.ndarray) -> list[Piece]:
    """Up to six trees of one kind on dry ground near enough to be seen as trees."""
    trunks: list[Mesh] = []
    crowns: list[Mesh] = []
    pines = random.random() < 0.6
    for _ in range(40):
        x, y = between(random, -4.5, 4.5), between(random, -0.5, 9)
        ground = _ground_at(land, x, y)
        if ground < 0.15 or len(trunks) == 6 or abs(x) > 0.9 + 0.45 * (y + 5):  # wet, enough, or out of the picture
            continue
        size = between(random, 0.8, 1.2)
        trunks.append(cylinder(0.12 * size, 0.7 * size, 8).moved(x, y, ground - 0.1))
        if pines:
            tiers = [cone((0.75 - 0.2 * k) * size, size).moved(z=(0.4 + 0.6 * k) * size) for k in range(3)]
            crowns.append(joined(tiers).moved(x, y, ground))
        else:
            crowns.append(ball(0.75 * size, 8, 12).moved(x, y, ground + 1.1 * size))
    return [painted(trunks, np.array([0.12, 0.06, 0.03])), painted(crowns, leaf)] if trunks else []


def _hills(random: Random, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height = np.full_like(x, 0.35)
    for _ in range(5):
        turn, size = between(random, 0, 2 * np.pi), between(random, 7, 12)
        wave = (x * cos(turn) + y * sin(turn)) * 2 * np.pi / size + between(random, 0, 2 * np.pi)
        height += between(random, 0.12, 0.3) * sin(wave)
    for _ in range(3):  # mountains
        a, b, wide = between(random, -11, 11), between(random, 14, 20), between(random, 3.5, 6.5)
        height += between(random, 3.2, 6.2) * exp(-(((x - a) / wide) ** 2 + ((y - b) / 3.8) ** 2))
    a, b = between(random, -3, 3), between(random, 2, 6)
    height -= 1.6 * exp(-(((x - a) / 3.5) ** 2 + ((y - b) / 3.0) ** 2))  # the lake's hollow
    return height


def _ground_at(land: np.ndarray, x: float, y: float) -> float:
    """Height of the nearest grid point, land (R, C, 3)."""
    row, column = np.abs(land[:, 0, 1] - y).argmin(), np.abs(land[0, :, 0] - x).argmin()
    return float(land[row, column, 2])


def _ground_colour(land: Mesh, palette: Palette) -> np.ndarray:
    """Meadow below, rock on steep or high ground, snow or pale rock on the tops, (V, 3)."""
    high, steep = land.vertices[:, 2:3], land.normals[:, 2:3]
    rock = np.clip((high - 1.5) / 1.2 + np.clip((0.75 - steep) * 3, 0, 1), 0, 1)
    top = np.clip((high - 3.0) / 0.8, 0, 1)
    colour = palette.floor + (palette.wall - palette.floor) * rock
    return colour + (palette.accents[2] - colour) * top


def city(random: Random, palette: Palette) -> Scene:
    """Towers with window bands: along a street, or standing apart on a square."""
    facades = shuffled(random, [palette.wall, *palette.accents[:-1]])
    ground = painted(polygon([(-40, -12, 0), (40, -12, 0), (40, 70, 0), (-40, 70, 0)]), palette.floor)
    layout = _street if random.random() < 0.6 else _square
    made = [ground, *layout(random, palette, facades)]
    camera = view(random, (0, -5.5, 2.2), (0, 8, 3.3), 56, sway=(0.8, 0.3, 0.4))
    return Scene(tuple(made), camera, daylight(random, palette, sun=2.2), palette.name)


def _street(random: Random, palette: Palette, facades: list[np.ndarray]) -> list[Piece]:
    """Two rows of towers, one across the end, and a car."""
    pane, half = palette.accents[-1], between(random, 2.4, 3.2)
    pavements = [box(1.0, 60, 0.12).moved(s * (half - 0.5), 20) for s in (-1, 1)]
    made = [painted(pavements, 0.5 * palette.wall + 0.2)]
    for side in (-1, 1):
        y = -3.2
        for i in range(5):
            depth, height = between(random, 4.0, 6.0), between(random, 4.5, 10)
            wall = facades[(i + (side > 0) * 2) % len(facades)]
            made += _tower((side * (half + 2.0), y + depth / 2), (4.0, depth - 0.4, height), wall, pane)
            y += depth
    x, width, height = between(random, -1.5, 1.5), between(random, 4, 6), between(random, 7, 12)
    made += _tower((x, 24), (width, 4, height), facades[1], pane)
    return [*made, _car(random, (half - 1.5) * 0.8)]


def _square(random: Random, palette: Palette, facades: list[np.ndarray]) -> list[Piece]:
    """Four towers side by side, a skyline behind them, and a car."""
    pane = palette.accents[-1]
    made: list[Piece] = []
    for x, wall in zip((-5.6, -1.9, 1.9, 5.6), facades, strict=True):
        y, height = between(random, 4.0, 11.0), between(random, 5.0, 10.5)
        made += _tower((x, y), (between(random, 2.6, 3.4), 3.0, height), wall, pane)
    for x in (-8, -2.5, 3, 8.5):
        made += _tower((x, 20), (5, 3, between(random, 6, 12)), facades[0], pane)
    return [*made, _car(random, between(random, 0.3, 1.2))]


def _tower(
    place: tuple[float, float], size: tuple[float, float, float], wall: np.ndarray, pane: np.ndarray
) -> list[Piece]:
    """A tower with broad bands of windows a little darker than its wall."""
    width, depth, height = size
    levels = np.arange(1.0, height - 1.2, 2.4)
    bands = [box(width + 0.06, depth - 0.6, 1.0).moved(*place, z) for z in levels]
    bands += [box(width - 0.8, depth + 0.06, 1.0).moved(*place, z) for z in levels]
    return [painted(box(*size).moved(*place), wall), painted(bands, 0.6 * wall + 0.4 * pane)]


def _car(random: Random, aside: float) -> Piece:
    side = -1 if random.random() < 0.5 else 1
    x, y = side * aside, between(random, 0.5, 2.5)
    body = [box(0.95, 2.0, 0.45).moved(x, y, 0.2), box(0.8, 1.1, 0.4).moved(x, y, 0.65)]
    return painted(body, np.array([0.6, 0.05, 0.04]), "gloss")
