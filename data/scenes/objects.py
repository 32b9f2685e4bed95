"""Classes of single objects in a studio: spheres, blocks, glass, mirrors, wires."""

from __future__ import annotations

import numpy as np

from data.core.elementary import cos, sin
from data.scenes.meshes import Mesh, ball, box, cone, hoop, joined, lathe, polygon, rod, tube, wedge
from data.scenes.palettes import Palette
from data.scenes.scene import Piece, Scene, Sky
from data.scenes.studio import WHITE, Random, backdrop, between, daylight, painted, shuffled, spread, view


def spheres(random: Random, palette: Palette) -> Scene:
    """Big balls on bright sand or paper, some with a broad band."""
    count = int(random.integers(3, 6))
    radii = [between(random, 0.9, 1.2), *np.sort(random.uniform(0.5, 0.95, count - 1))[::-1]]  # one of them is big
    colours = shuffled(random, palette.accents)
    made = backdrop(palette.floor, palette.wall, back=4.5)
    for i, ((x, y), radius) in enumerate(zip(spread(random, radii, 1.75, -1.0, 2.2), radii, strict=True)):
        if np.isfinite(x):
            mesh = ball(radius)
            colour = np.broadcast_to(colours[i % len(colours)], mesh.vertices.shape)
            if random.random() < 0.3:
                band = np.abs(mesh.vertices[:, 2:3]) < 0.3 * radius
                colour = np.where(band, WHITE, colour)
                mesh = mesh.turned(between(random, -35, 35), "y")
            made.append(Piece(mesh.moved(x, y, radius), "gloss", colour))
    return Scene(tuple(made), view(random, (0, -5.4, 2.3), (0, 0.6, 0.85), 44), daylight(random, palette), palette.name)


def blocks(random: Random, palette: Palette) -> Scene:
    """Toy blocks piled into two or three towers before a wall of one colour, some under a roof."""
    colours = shuffled(random, palette.accents)
    made = backdrop(palette.floor, palette.wall, back=3.4)
    slots = [(-1.25, 0.0, 1.25), (-0.75, 0.75)][int(random.random() < 0.4)]
    for slot in slots:
        x, y = slot + between(random, -0.15, 0.15), between(random, -0.5, 0.6)
        level, width = 0.0, between(random, 0.95, 1.1)
        levels = int(random.integers(1, 4))
        for i in range(levels):
            block = box(width, width, 0.85).turned(between(random, -20, 20)).moved(x, y, level)
            made.append(painted(block, colours[i]))
            level, width = level + 0.85, 0.92 * width
        if random.random() < 0.5:
            roof = wedge(1.1 * width, width, 0.6).turned(between(random, -20, 20)).moved(x, y, level)
            made.append(painted(roof, colours[levels]))
    camera = view(random, (0, -5.4, 2.5), (0, 0.2, 1.15), 39, sway=(0.35, 0.2, 0.2))
    return Scene(tuple(made), camera, daylight(random, palette), palette.name)


GOBLET = [
    (0, 0), (0.42, 0.0), (0.40, 0.06), (0.09, 0.14), (0.07, 0.75), (0.2, 0.88), (0.46, 1.15), (0.52, 1.5), (0.46, 1.95),
    (0.41, 1.95), (0.46, 1.5), (0.40, 1.2), (0.15, 0.98), (0, 0.95),
]  # fmt: skip
BOTTLE = [
    (0, 0), (0.48, 0), (0.52, 0.08), (0.52, 1.15), (0.44, 1.4), (0.19, 1.65), (0.16, 2.2), (0.2, 2.22), (0.2, 2.36),
    (0, 2.36),
]  # fmt: skip
VASE = [(0, 0), (0.32, 0), (0.55, 0.4), (0.6, 0.8), (0.42, 1.3), (0.22, 1.6), (0.3, 1.95), (0.36, 2.05), (0, 2.0)]


def glass(random: Random, palette: Palette) -> Scene:
    """One to three large tinted glass vessels before a glowing wall."""
    tints = shuffled(random, palette.accents)
    glow = palette.wall + (WHITE - palette.wall) * 0.85
    made = backdrop(palette.floor, glow, back=2.6, glow=palette.wall, bend=0.15)
    count = int(random.choice([1, 2, 2, 3]))
    lefts = np.linspace(-0.5, 0.5, count) * 1.12 * (count - 1) + random.uniform(-0.1, 0.1, count)
    for i, x in enumerate(lefts):
        size = between(random, 0.9, 1.05) * (1.1, 0.92, 0.8)[count - 1]
        kind = int(random.choice(4, p=(0.3, 0.3, 0.3, 0.1)))
        mesh = ball(0.62, 24, 40).moved(z=0.62) if kind == 3 else lathe((GOBLET, BOTTLE, VASE)[kind], 40)
        mesh = mesh.scaled(size, size, size).moved(x, between(random, -0.35, 0.35), 0.002)
        made.append(painted(mesh, 0.12 + 0.88 * tints[i % len(tints)], "glass"))
    sky = Sky(np.full(3, 1.0), np.full(3, 1.0), 0.3 * palette.floor)
    camera = view(random, (0, -4.4, 1.35), (0, 0, 1.02), 36, sway=(0.3, 0.2, 0.15))
    return Scene(tuple(made), camera, sky, palette.name, effort=1.6)


def mirrors(random: Random, palette: Palette) -> Scene:
    """A gilded mirror before a dark wall, and in it what stands in front: a ball, a block or a chrome ball."""
    gold, behind, *colours = palette.accents
    colours = shuffled(random, colours)
    made = backdrop(palette.floor, palette.wall, back=2.6, bend=0.2)
    # what the mirror sees behind the viewer: a wall of another colour
    made.append(painted(polygon([(14, -9, 0), (-14, -9, 0), (-14, -9, 6), (14, -9, 6)]), 0.7 * behind, "lamp"))
    frame, pane = _framed_mirror(random)
    made += [painted(frame, gold, "metal"), painted(pane, np.full(3, 0.95), "mirror")]
    side = -1 if random.random() < 0.5 else 1
    radius = between(random, 0.48, 0.6)
    place = (side * between(random, 0.7, 0.95), between(random, 0.2, 0.7))
    made.append(painted(ball(radius).moved(*place, radius), colours[0], "gloss"))
    width = between(random, 0.75, 0.95)
    place = (-side * between(random, 0.85, 1.15), between(random, 0.2, 0.7))
    if random.random() < 0.5:
        made.append(painted(ball(0.62, 24, 40).moved(*place, 0.62), np.full(3, 0.92), "mirror"))
    else:
        block = box(width, width, width * 1.25).turned(between(random, 15, 45)).moved(*place)
        made.append(painted(block, colours[1]))
    camera = view(random, (0, -4.6, 2.3), (0, 1.5, 1.15), 40, sway=(0.6, 0.2, 0.15))
    return Scene(tuple(made), camera, daylight(random, palette, sun=1.8), palette.name, effort=1.1)


def _framed_mirror(random: Random) -> tuple[Mesh, Mesh]:
    """A round or a rectangular mirror with its frame, standing before the wall."""
    y = 2.2
    if random.random() < 0.4:
        radius = between(random, 1.3, 1.45)
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        middle = radius + 0.15
        disc = polygon(np.column_stack([radius * cos(angle), np.full(40, y), middle + radius * sin(angle)]))
        return hoop(radius, 0.15).moved(0, y, middle), disc
    width, low, high, bar = between(random, 2.4, 3.2), 0.25, between(random, 2.5, 2.8), 0.24
    x = width / 2
    pane = polygon([(-x, y, low), (x, y, low), (x, y, high), (-x, y, high)])
    bars = [
        box(width + 2 * bar, 0.2, bar).moved(0, y, low - bar),
        box(width + 2 * bar, 0.2, bar).moved(0, y, high),
        box(bar, 0.2, high - low).moved(-x - bar / 2, y, low),
        box(bar, 0.2, high - low).moved(x + bar / 2, y, low),
    ]
    return joined(bars), pane


def wires(random: Random, palette: Palette) -> Scene:
    """Dark thin things against a sunset: a fence, a cage around a ball, standing hoops, or bare branches."""
    dark, light, _ = palette.accents
    glow, low = palette.sky
    made = backdrop(palette.floor, low, back=5.0, glow=glow, bend=0.3)
    kind = int(random.integers(0, 4))
    rods = (_fence, _cage, _hoops, _branches)[kind](random)
    made.append(painted(rods, dark))
    if kind == 1:
        made.append(painted(ball(0.42).moved(0, 0, 1.0), light, "gloss"))
    camera = view(random, (0, -4.8, 1.5), (0, 0, 1.15), 40, sway=(0.3, 0.15, 0.12))
    return Scene(tuple(made), camera, daylight(random, palette, sun=1.4, sky=1.1), palette.name)


def _fence(random: Random) -> list[Mesh]:
    height, thick, turn = between(random, 1.5, 1.8), 0.07, between(random, -15, 15)
    made = [rod((-3.5, 0, z), (3.5, 0, z), thick) for z in (0.25 * height, 0.78 * height)]
    for x in np.arange(-3.4, 3.5, 0.85):
        made += [rod((x, 0, 0), (x, 0, height), thick), cone(0.14, 0.32, 8).moved(x, 0, height)]
    return [m.turned(turn) for m in made]


def _cage(random: Random) -> list[Mesh]:
    radius, wall, thick, bars = between(random, 0.9, 1.0), between(random, 1.2, 1.35), 0.055, 8
    made = [hoop(radius, thick).turned(90, "x").moved(z=z) for z in (0.06, wall)]
    made.append(hoop(0.18, thick, 16).moved(z=wall + radius + 0.2))
    bend = np.linspace(0, np.pi / 2, 8)
    dome = zip(radius * cos(bend), np.zeros(8), wall + radius * sin(bend), strict=True)
    bar = tube([(radius, 0, 0.06), *dome], thick, 6)
    return made + [bar.turned(22.5 + 360 / bars * i) for i in range(bars)]


def _hoops(random: Random) -> list[Mesh]:
    made = []
    for x in ((-0.8, 0.8), (-1.2, 0.0, 1.2))[int(random.integers(0, 2))]:
        radius = between(random, 0.85, 1.1)
        ring = hoop(radius, 0.09, 44).turned(between(random, -45, 45))
        made.append(ring.moved(x + between(random, -0.1, 0.1), between(random, -0.4, 0.6), radius + 0.08))
    return made


def _branches(random: Random) -> list[Mesh]:
    """A bare tree: each bough forks in two."""
    made: list[Mesh] = []

    def grow(start: np.ndarray, heading: float, length: float, thick: float, forks: int) -> None:
        lean = between(random, -0.3, 0.3)
        end = start + length * np.array([sin(heading), lean, cos(heading)])
        made.append(rod(start, end, thick, 6))
        for turn in (-1, 1) if forks else ():
            shorter = length * between(random, 0.66, 0.8)
            grow(end, heading + turn * between(random, 0.35, 0.6), shorter, thick * 0.72, forks - 1)

    grow(np.array([between(random, -0.2, 0.2), 0, 0]), between(random, -0.1, 0.1), 0.85, 0.15, 3)
    return made
