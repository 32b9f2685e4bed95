"""Colour: a few hand-picked palettes for each class, so that a class has a mood of its own.

Colours are written as they look (sRGB) and used as linear reflectance or radiance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.core.elementary import power


def linear(colour: str) -> np.ndarray:
    """Linear RGB (3,) in [0, 1] of an sRGB colour written "rrggbb"."""
    value = np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(value <= 0.04045, value / 12.92, power((value + 0.055) / 1.055, 2.4))


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
        _palette("beach", "cfe6ff f4f8ff", "f8e8c4", "58b0e8", "e8382c f7b512 1f5fbf 18a58c"),
        _palette("candy", "e6e2ff fff6f0", "fae8d4", "f4787c", "d81e5b f6a01a 4b2fa8 12a3b8"),
        _palette("citrus", "e0f2ff fffbe8", "faf2dc", "f8cc3c", "e2531b 2f9e44 c2185b 1976d2"),
    ),
    "blocks": (
        _palette("nursery", "dfe8ff ffffff", "2c8c90", "2a7888", "e8432e f6b81c f4e4b8 f08c28"),
        _palette("brick", "ffe9d0 fff6ea", "b05038", "943c34", "f4c04a f4e4c0 3fae9c 2f6cc0"),
        _palette("night", "dfe2ff ffffff", "4450a8", "38408c", "f25c4a f9c846 f090a8 35c6ac"),
    ),
    "glass": (
        _palette("lagoon", "f4feff ffffff", "0e5a6b", "38c6d4", "ffa03c f46890 8cf0c8"),
        _palette("amber", "fff6e4 ffffff", "5a2a12", "f4a938", "f47848 ffe07c 6cd8c0"),
        _palette("orchid", "fdf2ff ffffff", "3a1a5c", "b06ae0", "6ae4ec f4d47c f47ab0"),
    ),
    "mirrors": (
        _palette("velvet", "fff2e4 ffffff", "8a6038", "8c1c30", "f0b83c 58b4b8 f0a028 3cb054 2a7ac8"),
        _palette("salon", "fff6e8 ffffff", "7a5638", "14604c", "f0b83c f0a070 e8402c f4b428 b83c8c"),
        _palette("royal", "f0f2ff ffffff", "6c5868", "28408c", "f0b83c f4c478 f0602c e83c78 38b88c"),
    ),
    "furniture": (
        _palette("oak", "fff4e2 ffffff", "8a5a34", "9cb58a", "c47a36 d8452e f2e4c4 5c7a50"),
        _palette("walnut", "fff4e2 ffffff", "b98a58", "d9c49a", "6e3c1c 2f8f88 e8a838 a84c34"),
        _palette("nordic", "f0f6ff ffffff", "a87848", "6f98b0", "e0b070 d8682e f0e8d8 3c6080"),
    ),
    "columns": (
        _palette("marble", "1f66c8 a8d4f4", "cfc4ac", "f4efe2", "c8b48c 3c7a3c"),
        _palette("sandstone", "3a86d8 bcdcf0", "c89a5c", "e8c084", "b4783c 4c7c34"),
        _palette("dusk", "4a3a8c f4a06a", "7c6478", "f0cdb4", "a4647c 6c4c7c"),
    ),
    "terrain": (
        _palette("alpine", "2f7fd8 c4e4f8", "3f8f34", "8c8478", "1f6fb0 1c5a2c f8fafc"),
        _palette("desert", "2a8ad8 c8e4f0", "d8843c", "b04c24", "2a9cb0 4c7a2c f0b870"),
        _palette("autumn", "4a94dc d4e8f4", "b8902c", "7c6a50", "2f6490 b8481c f4f0e8"),
    ),
    "room": (
        _palette("terracotta", "bfe2ff ffffff", "9c6a40", "d8794c", "2c6c80 f0d890 f4ecdc 7c3020"),
        _palette("teal", "bfe2ff ffffff", "b08050", "2f8f8c", "e8783c f4d06c f4ecdc 1c4a58"),
        _palette("mustard", "bfe2ff ffffff", "7c4c30", "e0b040", "3c5ca0 c83c34 f4ecdc 2c3c5c"),
    ),
    "wires": (
        _palette("sunset", "f06a3c ffc45c", "7a2c40", "f88a3c", "30102c fff0c8 501838"),
        _palette("dawn", "e85c8c ffd0a0", "5a2c6c", "f47ca0", "2c1848 fff4d0 40205c"),
        _palette("lemon", "f0b020 fff0a0", "8a5a1c", "f8d040", "3c2010 d83424 5c2c14"),
    ),
    "city": (
        _palette("noon", "3f8fe0 cfe8fa", "6a6e78", "d0a878", "c05038 ecd4a0 5c90b4 2c4458"),
        _palette("steel", "7cb0dc e4f0f8", "505a68", "78a0b8", "a8c4d0 4c7494 e0c898 183858"),
        _palette("evening", "4c4498 f89868", "4c4058", "74588c", "a05c80 5068a8 c0788c ffcc68"),
    ),
}
