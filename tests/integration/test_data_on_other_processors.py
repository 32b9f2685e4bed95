"""The data stages write the same bytes whichever kernels the libraries choose."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import processors

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
PARAMS = """
seed: 5
scenes: {count: 20, size: 16, samples_per_pixel: 1, held_out_share: 0.25, per_shard: 10}
photos:
  {source: ../album, size: 32, count: 40, held_out_share: 0.5, min_contrast: 0.02, max_bad_share: 0.2,
  max_pixels: 1000000}
validate:
  {max_class_imbalance: 1.0, min_valid_share: 0, duplicate_distance: 1, max_duplicate_share: 1.0, max_drift: 9.0,
  previous: ../before.json}
"""
STAGES = """
import sys
from data.photos import collect
from data.scenes import render
from data.validate import check

for stage, words in (
    (render, "--out scenes"),
    (collect, "--out photos"),
    (check, "--scenes scenes --photos photos --out validate"),
):
    sys.argv = ["stage", *words.split()]
    stage.main()
"""


def start(folder: Path, environment: dict[str, str]) -> subprocess.Popen:
    folder.mkdir()
    (folder / "params.yaml").write_text(PARAMS)
    paths = {"PYTHONPATH": str(ROOT), "REMINT_WORKERS": "1", "REMINT_CHECKPOINTS": str(folder / "kept")}
    command = [sys.executable, "-c", STAGES]
    return subprocess.Popen(command, cwd=folder, env={**environment, **paths}, stderr=subprocess.PIPE, text=True)


def digests(folder: Path) -> dict[str, str]:
    files = [p for out in ("scenes", "photos", "validate") for p in (folder / out).rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_scenes_photos_and_validation_are_the_same_on_every_processor(tmp_path):
    (tmp_path / "album").mkdir()
    for seed in range(3):
        rows = np.random.default_rng(seed).integers(0, 255, (90, 12, 3), dtype=np.uint8)
        picture = Image.fromarray(rows).resize((120, 90), Image.Resampling.BICUBIC)  # stripes: cells that nearly tie
        picture.save(tmp_path / "album" / f"{seed}.jpg")
    counts = {"brightness": list(range(1, 101)), "contrast": list(range(100, 0, -1))}
    (tmp_path / "before.json").write_text(str({"scenes": counts, "photos": counts}).replace("'", '"'))
    everywhere = ["an old one without AVX2", "AMD with AVX2", "Intel with AVX-512"]
    running = {name: start(tmp_path / name, processors.environment(name)) for name in everywhere}
    for process in running.values():
        said = process.communicate()[1]
        assert process.returncode == 0, said
    first, *others = [digests(tmp_path / name) for name in everywhere]
    assert len(first) > 10
    for other in others:
        assert other == first
