"""Colour: a few hand-picked palettes for each class, so that a class has a mood of its own.

Colours are written as they look (sRGB) and used as linear reflectance or radiance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def linear(colour: str) -> np.ndarray:
    """Linear RGB (3,) in [0, 1] of an sRGB colour written "rrggbb"."""
    value = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@dataclass(frozen=True)
class Palette:
    """A named set of colours: sky from top to horizon, floor, wall or main building stuff, and accents."""

    name: str
    sky: tuple[np.ndarray, np.ndarray]
    floor: np.ndarray
    wall: np.ndarray
    accents: tuple[np.ndarray, ...]


def _palette(name: str, sky: str, floor: str, wall: str, accents: str) -> Palette:
    top, horizon = sky.split()
    return Palette(
        name, (linear(top), linear(horizon)), linear(floor), linear(wall), tuple(map(linear, accents.split()))
    )


PALETTES: dict[str, tuple[Palette, ...]] = {
    "spheres": (
        _palette("beach", "cfe6ff f4f8ff", "f0dfb8", "5fb4e6", "e8382c f7b512 1f5fbf 18a58c"),
        _palette("candy", "e6e2ff fff6f0", "f6ead8", "f39ab0", "d81e5b f6a01a 4b2fa8 12a3b8"),
        _palette("citrus", "e0f2ff fffbe8", "f4ecd2", "f6c945", "e2531b 2f9e44 c2185b 1976d2"),
    ),
    "blocks": (
        _palette("nursery", "dfe8ff ffffff", "1f6f78", "174f63", "e8432e f6b81c f2ead8 4aa3e0"),
        _palette("brick", "ffe9d0 fff6ea", "8c3b2a", "6b2a28", "f4c04a f3e7cf 3f9e8f 2b5fa8"),
        _palette("night", "dfe2ff ffffff", "2d3a80", "232a60", "f25c4a f9c846 f5efe2 35b6a0"),
    ),
    "glass": (
        _palette("lagoon", "f4feff ffffff", "0e5a6b", "38c6d4", "ff9c38 f2f6f4 9af0dc"),
        _palette("amber", "fff6e4 ffffff", "5a2a12", "f4a938", "e85a2a fdf4e0 68c8b0"),
        _palette("orchid", "fdf2ff ffffff", "3a1a5c", "b06ae0", "5ae0e8 f8f0ff f06aa8"),
    ),
    "mirrors": (
        _palette("velvet", "fff2e4 ffffff", "6b4a2c", "7c1428", "f0b83c 2aa8c8 f2f0e6 3cb054"),
        _palette("salon", "fff6e8 ffffff", "4a3626", "0f4a3c", "f0b83c e8503c f4eee0 f0a028"),
        _palette("royal", "f0f2ff ffffff", "54443c", "1c2c70", "f0b83c f0603c f2f0e6 e83c78"),
    ),
    "furniture": (
        _palette("oak", "fff4e2 ffffff", "8a5a34", "9cb58a", "c47a36 d8452e f2e4c4 3a6ea0"),
        _palette("walnut", "fff4e2 ffffff", "b98a58", "d9c49a", "5e3218 2f7f78 e0a030 c8402c"),
        _palette("nordic", "f0f6ff ffffff", "a87848", "6f98b0", "e0b070 e8e4d8 d8682e 2d4f6b"),
    ),
    "columns": (
        _palette("marble", "1f66c8 a8d4f4", "cfc4ac", "f4efe2", "c8b48c"),
        _palette("sandstone", "3a86d0 f6dca8", "c89a5c", "e8c084", "b4783c"),
        _palette("dusk", "4a3a8c f4a06a", "7c6478", "f0cdb4", "a4647c"),
    ),
    "terrain": (
        _palette("alpine", "2f7fd8 c4e4f8", "3f8f34", "8c8478", "1f6fb0 1c5a2c f8fafc"),
        _palette("desert", "2a8ad0 f8e4c0", "d8843c", "b04c24", "2a9cb0 4c7a2c f0b870"),
        _palette("autumn", "5a9ad8 f4ecd8", "b8902c", "7c6a50", "2f6490 b8481c f4f0e8"),
    ),
    "room": (
        _palette("terracotta", "bfe2ff ffffff", "9c6a40", "d8794c", "2c6c80 f0d890 f4ecdc 7c3020"),
        _palette("teal", "bfe2ff ffffff", "b08050", "2f8f8c", "e8783c f4d06c f4ecdc 1c4a58"),
        _palette("mustard", "bfe2ff ffffff", "7c4c30", "e0b040", "3c5ca0 c83c34 f4ecdc 2c3c5c"),
    ),
    "wires": (
        _palette("sunset", "f06a3c ffc45c", "7a2c40", "f88a3c", "180c18 fff0c8 501838"),
        _palette("dawn", "e85c8c ffd0a0", "5a2c6c", "f47ca0", "1c1030 fff4d0 40205c"),
        _palette("lemon", "f0b020 fff0a0", "8a5a1c", "f8d040", "201810 d83424 5c2c14"),
    ),
    "city": (
        _palette("noon", "3f8fe0 cfe8fa", "5a5e66", "b4a692", "a8503c d8c8a8 5c7c94 2c3c4c"),
        _palette("steel", "7cb0dc e4f0f8", "484e58", "7890a4", "a4b4c0 54687c c8b89c 1c3048"),
        _palette("evening", "3c3c84 f08c6c", "3c3448", "5c4c74", "7c5070 485c94 94687c ffc860"),
    ),
}
