"""What a scene is before it is rendered: pieces with material and colour, a camera, a sky and a sun."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.scenes.camera import Camera
from data.scenes.meshes import Mesh

# matte: Lambertian; gloss: a clear coat over colour; metal: brushed; glass: refracting, tinted; lamp: emits
MATERIALS = ("matte", "gloss", "metal", "mirror", "glass", "lamp")


@dataclass(frozen=True)
class Piece:
    """A mesh of one material; colour is linear RGB, (3,) or per vertex (V, 3); a lamp's colour is its radiance."""

    mesh: Mesh
    material: str
    colour: np.ndarray


@dataclass(frozen=True)
class Sky:
    """Light from afar: gradient radiance (linear RGB) from the horizon up, the ground's glow below, and a sun."""

    top: np.ndarray
    horizon: np.ndarray
    below: np.ndarray
    sun: np.ndarray | None = None  # irradiance on a surface facing it
    sun_from: tuple[float, float, float] = (-0.5, -0.6, 0.8)  # direction towards the sun


@dataclass(frozen=True)
class Scene:
    """Everything a renderer needs, and the palette's name for the record."""

    pieces: tuple[Piece, ...]
    camera: Camera
    sky: Sky
    palette: str
    effort: float = 1.0  # samples per pixel relative to the set number: more where light is hard to find
