"""What a photograph that arrives is measured by is what the manifest would say of its tiles."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data.core import manifest
from data.photos.decode import Unusable
from data.photos.params import Photos
from data.validate import drift
from flows.arrivals import measure
from tests.arriving import photograph

CUT = Photos("photos", 32, 100, 0.1, min_contrast=0.02, max_bad_share=0.1, max_pixels=1_000_000, seed=1)


def test_its_statistics_are_those_of_the_manifest_and_add_up(tmp_path: Path) -> None:
    counts, rows = [], []
    for number in range(3):
        path = tmp_path / "photograph"
        path.write_bytes(photograph(number, size=(200, 150)))
        found = measure.measure(path, f"{number:064x}", CUT)
        assert found.tiles.shape == (measure.TILES, 32, 32, 3)
        seen = [manifest.statistics(tile) for tile in found.tiles]
        assert found.brightness == pytest.approx([row["brightness"] for row in seen])
        assert found.contrast == pytest.approx([row["contrast"] for row in seen])
        counts.append(measure.histograms(found.brightness.tolist(), found.contrast.tolist()))
        rows += seen
    assert measure.added(counts) == drift.statistics({"photos": pd.DataFrame(rows)})["photos"]


def test_a_picture_without_contrast_is_none_for_us(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(np.full((64, 64, 3), 120, dtype=np.uint8)).save(tmp_path / "wall.png")
    with pytest.raises(Unusable, match="empty sky or wall"):
        measure.measure(tmp_path / "wall.png", "0" * 64, CUT)
