"""Mitsuba's pictures and depth: exact, reproducible for any number of workers, and readable afterwards."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data.core import manifest
from data.core.samples import Samples
from data.scenes import renderer, sample
from data.scenes.camera import Camera
from data.scenes.grammar import NAMES
from data.scenes.meshes import ball, polygon
from data.scenes.scene import Piece, Scene, Sky
from tests import code

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
PARAMS = """
seed: 5
scenes: {count: 20, size: 32, samples_per_pixel: 1, held_out_share: 0.3, per_shard: 8}
"""


def stage(folder: Path, out: str, workers: int, text: str = PARAMS, part: str = "") -> subprocess.CompletedProcess:
    process = start(folder, out, workers, text, part)
    said = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


def start(folder: Path, out: str, workers: int, text: str = PARAMS, part: str = "") -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    (folder / "params.yaml").write_text(text)
    code.put(folder)
    named = {"REMINT_WORKERS": str(workers), "REMINT_PART": part}
    environment = {**os.environ, **named, "REMINT_CHECKPOINTS": str(folder / "kept")}
    command = [sys.executable, "-m", "data.scenes.render", "--out", out]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    done = stage(folder, "scenes", workers=1)
    assert done.returncode == 0, done.stderr
    return folder / "scenes"


def test_one_and_two_workers_write_the_same_bytes(rendered):
    done = stage(rendered.parent, "again", workers=2)
    assert done.returncode == 0, done.stderr
    assert digests(rendered) == digests(rendered.parent / "again")


def kept(folder: Path) -> list[Path]:
    return list((folder / "kept").glob("scenes-*/*.shard"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_rendering_that_was_ended_goes_on_from_its_finished_shards(rendered, number):
    folder, out = rendered.parent, f"ended by {number}"
    process = start(folder, out, workers=1)
    while not kept(folder) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=60)  # for ever, if a worker outlived it
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    for _ in range(100):  # its worker notices that it is alone
        if not alive(process.pid):
            break
        time.sleep(0.1)
    assert not alive(process.pid)
    done = stage(folder, out, workers=2)
    assert done.returncode == 0, done.stderr
    assert "of 3 shards done" in done.stderr
    assert digests(rendered) == digests(folder / out)
    assert not list((folder / "kept").iterdir())


def alive(group: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, 0)
        return True
    return False


def test_parts_rendered_at_once_give_the_same_bytes(rendered):
    folder = rendered.parent
    parts = [start(folder, "parts", workers=1, part=part) for part in ("2/2", "1/2")]
    for part in parts:
        part.communicate()
        assert part.returncode == 0
    assert not (folder / "parts").exists()
    assert len(kept(folder)) == 3
    done = stage(folder, "parts", workers=1)
    assert "going on with 3 of 3 shards done" in done.stderr
    assert digests(rendered) == digests(folder / "parts")
    assert not list((folder / "kept").iterdir())


def test_every_class_is_there_in_the_order_of_the_indices(rendered):
    rows = manifest.read(rendered).to_pylist()
    assert [r["key"] for r in rows] == [f"{i:08d}" for i in range(20)]
    assert [r["class_name"] for r in rows] == [NAMES[i % 10] for i in range(20)]
    assert {r["shard"] for r in rows} == {f"scenes-0000{i}.tar" for i in range(3)}
    assert {(r["source"], r["licence"]) for r in rows} == {("mitsuba", "CC0-1.0")}


def test_samples_read_back_with_near_plane_at_one_and_sky_at_zero(rendered):
    samples = Samples(rendered)
    disparity = samples.disparities()
    assert samples.images().shape == (20, 32, 32, 3)
    assert samples.class_names == list(NAMES)
    assert np.allclose(disparity.max(axis=(1, 2)), 1)
    assert (disparity[samples.labels == NAMES.index("terrain")] == 0).any()  # there is a sky
    record = json.loads(samples.members(0)["json"])
    assert record["class"] == "spheres"
    assert {"palette", "camera", "near", "far"} <= set(record)


def test_a_sample_depends_on_nothing_but_its_seed_and_index():
    first, _, again = (sample.make(5, index, 16, 1) for index in (2, 9, 2))
    assert np.array_equal(first.picture, again.picture)
    assert np.array_equal(first.depth, again.depth)


def test_a_degenerate_scene_is_drawn_again(monkeypatch):
    good = sample.compose(5, 0)
    inside = replace(good, camera=Camera((0.0, 4.3, 1.0), (0.0, 9.0, 1.0), 40.0))  # its nose on the wall
    monkeypatch.setattr(sample, "compose", lambda seed, index, attempt: good if attempt else inside)
    assert sample.make(5, 0, 16, 1).record["attempt"] == 1


def test_depth_is_camera_z_of_a_slanted_plane_and_of_glass_before_it():
    camera = Camera((0.3, -4.0, 2.0), (0.0, 0.5, 0.2), 50.0)
    floor = polygon([(-50, -50, 0), (50, -50, 0), (50, 50, 0), (-50, 50, 0)])
    grey = np.full(3, 0.5)
    pieces = (Piece(floor, "matte", grey), Piece(ball(0.5, 64, 96).moved(z=1), "glass", np.ones(3)))
    size = 48
    depth = renderer.render(Scene(pieces, camera, Sky(grey, grey, grey), "grey"), size, 1, 0).depth

    forward = camera.forward()
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    step = (np.arange(size) + 0.5) / size * 2 - 1
    reach = np.tan(np.radians(camera.field_of_view / 2))
    rays = forward + reach * (step[None, :, None] * right - step[:, None, None] * up)  # z = 1 along each
    with np.errstate(divide="ignore"):
        plane = -camera.position[2] / rays[..., 2]
    offset = np.array([0, 0, 1.0]) - camera.position
    along, square = rays @ offset, (rays**2).sum(-1)
    under = along**2 - square * (offset @ offset - 0.25)
    hit = under > 0.02
    sphere = (along - np.sqrt(np.maximum(under, 0))) / square
    clear = under < -0.02
    assert hit.sum() > 50
    assert np.abs(depth[hit] - sphere[hit]).max() < 0.01  # the ball is a mesh
    floor_seen = clear & (plane > 0) & (plane < 40)
    assert np.abs(depth[floor_seen] / plane[floor_seen] - 1).max() < 1e-4
    assert (depth[plane < 0] == 0).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PARAMS.replace("count: 20", "count: 3"), "scenes.count must be at least 10"),
        (PARAMS.replace("size: 32", "sise: 32"), "did you mean 'size'"),
        ("seed: 5\n", "no section 'scenes'"),
    ],
)
def test_a_mistake_in_the_parameters_is_one_line_and_exit_code_2(tmp_path, text, words):
    done = stage(tmp_path, "out", 1, text)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
