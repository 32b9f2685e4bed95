"""The depth benchmark: one real photograph with measured depth, the Motorcycle scene of Middlebury 2014.

scikit-image carries the left and right pictures and the disparity, at a quarter of the original resolution.
Neither picture ever enters the pool of photographs (`views` is what the collector compares with).

Source: Scharstein et al., "High-resolution stereo datasets with subpixel-accurate ground truth", GCPR 2014.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from data.core.params import UserError
from data.photos.sources import package_folder

# Calibration of the quarter-size pictures, from the docstring of skimage.data.stereo_motorcycle.
FOCAL = 994.978  # pixels
BASELINE = 0.193001  # metres
OFFSET = 31.086  # pixels between the principal points: z = FOCAL * BASELINE / (disparity + OFFSET)

ABOUT = {
    "title": "Motorcycle (left view)",
    "author": "Nera Nesic, Porter Westling, Xi Wang, York Kitajima, Greg Krathwohl, Daniel Scharstein",
    "licence": "not stated by Middlebury or scikit-image; used for evaluation only, please cite GCPR 2014",
    "url": "https://vision.middlebury.edu/stereo/data/scenes2014/",
    "disparity": "inverse depth in 1/m, 0 where nothing was measured",
}


def views() -> list[np.ndarray]:
    """The left and the right picture, uint8 (500, 741, 3)."""
    return [np.asarray(Image.open(_installed(f"motorcycle_{side}.png")).convert("RGB")) for side in ("left", "right")]


def inverse_depth() -> np.ndarray:
    """Measured inverse depth of the left picture in 1/m, float32 (500, 741), 0 where nothing was measured."""
    with np.load(_installed("motorcycle_disp.npz"), allow_pickle=False) as stored:
        disparity = stored["arr_0"].astype(np.float64)  # pixels; +inf where nothing was measured
    return np.where(np.isfinite(disparity), (disparity + OFFSET) / (FOCAL * BASELINE), 0).astype(np.float32)


def write_motorcycle(folder: Path) -> None:
    """Store picture, inverse depth and provenance in `folder`, so that readers need no scikit-image."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(views()[0]).save(folder / "motorcycle.png")
    np.save(folder / "motorcycle.npy", inverse_depth())
    (folder / "motorcycle.json").write_text(json.dumps(ABOUT, indent=2) + "\n")


def load_motorcycle(folder: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image uint8 (H, W, 3), inverse depth in 1/m float32 (H, W), valid bool (H, W) of a written benchmark.

    The inverse depth is proportional to 1/z like the disparity of a rendered scene, and 0 where invalid:
    metric depth is `1 / disparity[valid]`, 2.1 to 5.0 m.
    """
    folder = Path(folder)
    try:
        image = np.asarray(Image.open(folder / "motorcycle.png").convert("RGB"))
        disparity = np.load(folder / "motorcycle.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: no readable motorcycle benchmark ({error}); run the stage photos again") from None
    return image, disparity, disparity > 0


def _installed(name: str) -> Path:
    path = package_folder("skimage") / "data" / name
    if not path.exists():
        raise UserError(f"scikit-image does not carry data/{name}; install the version of requirements.lock")
    return path
