"""The ten classes: from (seed, index, attempt) to a scene."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data.scenes.interiors import furniture, room
from data.scenes.objects import blocks, glass, mirrors, spheres, wires
from data.scenes.outdoors import city, columns, terrain
from data.scenes.palettes import PALETTES, Palette
from data.scenes.scene import Scene

CLASSES: dict[str, Callable[[np.random.Generator, Palette], Scene]] = {
    "spheres": spheres,
    "blocks": blocks,
    "glass": glass,
    "mirrors": mirrors,
    "furniture": furniture,
    "columns": columns,
    "terrain": terrain,
    "room": room,
    "wires": wires,
    "city": city,
}
NAMES = tuple(CLASSES)


def compose(seed: int, index: int, attempt: int = 0) -> Scene:
    """The scene of an index: its class is index % 10, everything else is drawn from (seed, index, attempt)."""
    random = np.random.default_rng([seed, index, attempt])
    name = NAMES[index % len(NAMES)]
    palettes = PALETTES[name]
    return CLASSES[name](random, palettes[int(random.integers(len(palettes)))])
