"""A pinhole camera and exact depth from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A square pinhole camera: position and target in metres (z up), full field of view in degrees."""

    position: tuple[float, float, float]
    target: tuple[float, float, float]
    field_of_view: float

    def forward(self) -> np.ndarray:
        """The unit viewing direction, (3,)."""
        ahead = np.subtract(self.target, self.position)
        return ahead / np.sqrt((ahead * ahead).sum())

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Camera z, the distance along the viewing axis, of points (..., 3), in metres."""
        return ((points - np.asarray(self.position)) * self.forward()).sum(axis=-1)

    def record(self) -> dict:
        """The camera as JSON values."""
        return {
            "position": [round(float(v), 4) for v in self.position],
            "target": [round(float(v), 4) for v in self.target],
            "field_of_view": round(float(self.field_of_view), 4),
        }
