"""Classes with furniture: a table or chair before a wall, and a whole room seen from its open side."""

from __future__ import annotations

import numpy as np

from data.scenes.meshes import Mesh, ball, box, cylinder, joined, lathe, polygon
from data.scenes.palettes import Palette
from data.scenes.scene import Piece, Scene, Sky
from data.scenes.studio import WHITE, Random, backdrop, between, daylight, direction, painted, view


def furniture(random: Random, palette: Palette) -> Scene:
    """Dining: a wooden table with two or three chairs and something on it."""
    wood, seat, light, rug = palette.accents
    made = backdrop(palette.floor, palette.wall, back=3.0, bend=0.15)
    skirting = box(28, 0.06, 0.16).moved(0, 2.95, 0)
    made.append(painted(skirting, WHITE))
    made.append(painted(cylinder(1.6, 0.015, 40).scaled(1.15, 0.8, 1).moved(0, 0.3), rug))
    round_table = random.random() < 0.4
    width = between(random, 1.35, 1.65)
    made.append(painted(_table(width, round_table).moved(0, 0.4, 0), wood))
    vase = lathe([(0, 0), (0.13, 0), (0.2, 0.16), (0.1, 0.36), (0.14, 0.42), (0, 0.4)], 16)
    things = (
        painted(vase.moved(0, 0.4, 0.9), light, "gloss"),
        painted(ball(0.17, 10, 16).moved(0, 0.4, 1.07), light, "gloss"),
    )
    made.append(things[int(random.integers(0, 2))])
    places = [(-width / 2 - 0.1, 0.25, -90.0), (width / 2 + 0.1, 0.25, 90.0), (0.0, -0.6, 0.0)]
    for i in range(3):
        if i == 2 and random.random() < 0.6:
            continue
        x, y, turn = places[i]
        frame, cushion = _chair()
        turn += between(random, -25, 25)
        made.append(painted(frame.turned(turn).moved(x, y), wood))
        made.append(painted(cushion.turned(turn).moved(x, y), seat))
    camera = view(random, (0.4, -3.7, 2.1), (0, 0.2, 0.6), 36, sway=(0.8, 0.2, 0.25))
    return Scene(tuple(made), camera, daylight(random, palette), palette.name)


def _table(width: float, is_round: bool) -> Mesh:
    if is_round:
        return joined([cylinder(width / 2, 0.09, 32).moved(z=0.81), cylinder(0.1, 0.81), cylinder(0.42, 0.06)])
    depth = 1.0
    legs = [box(0.11, 0.11, 0.82).moved(x * (width / 2 - 0.1), y * (depth / 2 - 0.1)) for x in (-1, 1) for y in (-1, 1)]
    return joined([box(width, depth, 0.09).moved(z=0.81), *legs])


def _chair() -> tuple[Mesh, Mesh]:
    """Frame and cushion of a chair that faces +y."""
    legs = [box(0.07, 0.07, 0.48).moved(x * 0.22, y * 0.22) for x in (-1, 1) for y in (-1, 1)]
    posts = [box(0.07, 0.07, 0.62).moved(x * 0.22, -0.24, 0.5) for x in (-1, 1)]
    cushions = [box(0.52, 0.52, 0.1).moved(z=0.46), box(0.44, 0.06, 0.34).moved(0, -0.24, 0.74)]
    return joined([*legs, *posts]), joined(cushions)


def room(random: Random, palette: Palette) -> Scene:
    """A living room seen straight in: sofa below a picture, window beside it, rug, low table, lamp and shelf."""
    sofa, cushion, cream, dark = palette.accents
    x, back, high = between(random, 2.0, 2.25), 2.8, 2.6
    side = -1 if random.random() < 0.5 else 1  # where the sofa stands; the window is on the other side
    middle = side * between(random, 0.65, 0.8)
    made = _walls(x, back, high, palette)
    rug = cylinder(between(random, 1.0, 1.25), 0.02, 36).scaled(1.25, 0.8, 1)
    made.append(painted(rug.moved(0, 0.9), 0.6 * cream + 0.4 * palette.floor))
    made += _window(-side * 0.95, back, 1.5 * palette.sky[0])
    made += _sofa(sofa, cushion, middle, back - 0.6, side)
    made.append(painted(box(0.95, 0.05, 0.62).moved(middle, back - 0.03, 1.35), cushion))
    table = joined([cylinder(0.48, 0.08, 28).moved(z=0.4), cylinder(0.12, 0.4)])
    made.append(painted(table.moved(between(random, -0.5, 0.5), between(random, 0.4, 0.9)), dark))
    if random.random() < 0.5:
        shelf = box(0.45, 1.0, between(random, 1.3, 1.8))
        made.append(painted(shelf.moved(-side * (x - 0.23), between(random, 0.9, 1.3)), dark))
    else:
        pot, leaves = cylinder(0.24, 0.45), ball(0.5, 10, 16).scaled(0.9, 0.9, 1.25).moved(z=1.0)
        place = (-side * (x - 0.55), between(random, 1.2, 1.8))
        made += [painted(pot.moved(*place), cushion), painted(leaves.moved(*place), np.array([0.06, 0.25, 0.08]))]
    shade, cord = lathe([(0.34, 0), (0.2, 0.3)], 20), box(0.04, 0.04, 0.32)
    made.append(painted(shade.moved(0, 0.8, high - 0.62), np.array([1.3, 1.0, 0.65]), "lamp"))
    made.append(painted(cord.moved(0, 0.8, high - 0.32), dark))
    # daylight falls in from the open side, high enough to leave the picture's upper part in soft light
    towards = direction((-side * between(random, 0.2, 0.5), -1.0, between(random, 0.45, 0.65)))
    white = np.full(3, 2.4)
    sky = Sky(white, white, 0.8 * palette.floor, sun=np.array([2.6, 2.4, 2.1]), sun_from=towards)
    camera = view(random, (0, -3.1, 1.5), (0, 1.5, 1.12), 52, sway=(0.4, 0.15, 0.12))
    return Scene(tuple(made), camera, sky, palette.name, effort=1.2)


def _walls(x: float, back: float, high: float, palette: Palette) -> list[Piece]:
    """Floor, ceiling, back and side walls of a room that is open towards the viewer."""
    front = -1.6
    floor = [(-x, front, 0), (x, front, 0), (x, back, 0), (-x, back, 0)]
    ceiling = [(-x, front, high), (-x, back, high), (x, back, high), (x, front, high)]
    rear = [(-x, back, 0), (x, back, 0), (x, back, high), (-x, back, high)]
    left = [(-x, front, 0), (-x, back, 0), (-x, back, high), (-x, front, high)]
    right = [(x, back, 0), (x, front, 0), (x, front, high), (x, back, high)]
    return [
        painted(polygon(floor), palette.floor),
        painted(polygon(ceiling), WHITE),
        painted(polygon(rear), palette.wall),
        painted([polygon(left), polygon(right)], 0.8 * palette.wall),
    ]


def _window(x: float, back: float, light: np.ndarray) -> list[Piece]:
    """A cross-barred window in the back wall with bright sky behind it."""
    y, half, low, high = back - 0.02, 0.62, 0.95, 2.1
    pane = polygon([(x - half, y, low), (x + half, y, low), (x + half, y, high), (x - half, y, high)])
    bars = [
        box(2 * half + 0.16, 0.08, 0.1).moved(x, y - 0.02, low - 0.08),
        box(2 * half + 0.16, 0.08, 0.1).moved(x, y - 0.02, high - 0.02),
        *(box(0.1, 0.08, high - low).moved(x + a, y - 0.02, low) for a in (-half, 0, half)),
    ]
    return [painted(pane, light, "lamp"), painted(bars, WHITE)]


def _sofa(colour: np.ndarray, cushion: np.ndarray, x: float, y: float, side: int) -> list[Piece]:
    """A sofa with one cushion, its back to the rear wall."""
    parts = [
        box(1.9, 0.9, 0.45),
        box(1.9, 0.25, 0.95).moved(0, 0.35),
        box(0.25, 0.9, 0.68).moved(-0.9),
        box(0.25, 0.9, 0.68).moved(0.9),
    ]
    pillow = box(0.5, 0.18, 0.42).turned(-15, "x").moved(0.45 * side, 0.05, 0.46)
    return [painted([p.moved(x, y) for p in parts], colour), painted(pillow.moved(x, y), cushion)]
