"""Stage photos: from a folder of anything to equal tiles, with everything else set aside and named."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.core import manifest
from data.core.params import UserError
from data.core.samples import Samples
from data.photos import benchmark, collect, listing
from data.photos.params import Photos
from tests import code

pytestmark = pytest.mark.integration

PARAMETERS = Photos(
    source="",
    size=32,
    count=60,
    held_out_share=0.2,
    min_contrast=0.02,
    max_bad_share=0.5,
    max_pixels=1_000_000,
    seed=0,
)


def photograph(seed, width=120, height=90):
    """Smooth colours, so that JPEG keeps them and no two seeds look alike."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def digests(folder):
    files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def album(tmp_path):
    """Five photographs of several kinds, and six files that are none."""
    folder = tmp_path / "album"
    (folder / "inner folder").mkdir(parents=True)
    photograph(0).save(folder / "one.jpg")
    photograph(1).convert("L").save(folder / "inner folder" / "grey\nnewline.png")
    photograph(2).convert("CMYK").save(folder / "print.tiff")
    photograph(3).save(folder / (("Ä" * 100) + ".webp"), lossless=True)
    photograph(4).save(folder / "five.png")
    (folder / "copy of five.png").write_bytes((folder / "five.png").read_bytes())
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("no picture")
    (folder / "cut.jpg").write_bytes((folder / "one.jpg").read_bytes()[:900])
    photograph(5, 20, 20).save(folder / "tiny.png")
    photograph(6, 1200, 900).save(folder / "huge.png")
    return folder


def test_an_album_becomes_equal_tiles_and_everything_else_is_named(album, tmp_path):
    out = tmp_path / "out"
    collect.collect(str(album), out, PARAMETERS)
    samples = Samples(out)
    assert samples.images().shape == (len(samples), 32, 32, 3)
    assert 20 < len(samples) <= PARAMETERS.count
    assert set(samples.labels) == {-1}
    train, val = Samples(out, "train"), Samples(out, "val")
    assert not {k.split("-")[0] for k in train.keys} & {k.split("-")[0] for k in val.keys}
    aside = {entry["name"]: entry["reason"] for entry in json.loads((out / "quarantine.json").read_text())}
    assert aside["empty.jpg"] == "is empty"
    assert "not a JPEG" in aside["notes.txt"]
    assert "truncated" in aside["cut.jpg"]
    assert "less than a tile" in aside["tiny.png"]
    assert "1200 x 900 pixels, more than" in aside["huge.png"]
    assert "is a copy of" in (aside.get("five.png") or aside.get("copy of five.png"))
    assert len(aside) == 6
    info = json.loads((out / "info.json").read_text())
    assert (info["files"], info["photographs"], info["bad_files"]) == (11, 5, 5)


def test_bytes_depend_on_the_photographs_alone(album, tmp_path):
    collect.collect(str(album), tmp_path / "first", PARAMETERS)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in sorted(album.rglob("*"), reverse=True):  # other place, other order on disk, other times
        if path.is_file():
            target = moved / path.relative_to(album)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
            os.utime(target, (1, 1))
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "photos-00007.tar").write_bytes(b"left over from a larger run")
    collect.collect(str(moved), tmp_path / "second", PARAMETERS)
    assert digests(tmp_path / "first") == digests(tmp_path / "second")


def test_a_renamed_photograph_keeps_its_tiles_and_its_split(album, tmp_path):
    collect.collect(str(album), tmp_path / "first", PARAMETERS)
    (album / "one.jpg").rename(album / "zzz.jpg")
    collect.collect(str(album), tmp_path / "second", PARAMETERS)
    first, second = (manifest.read(tmp_path / name).to_pydict() for name in ("first", "second"))
    assert (first["key"], first["split"], first["dhash"]) == (second["key"], second["split"], second["dhash"])


def test_flat_tiles_are_dropped_and_counted(tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    half_sky = np.asarray(photograph(0, 128, 64)).copy()
    half_sky[:, 64:] = (90, 140, 220)
    Image.fromarray(half_sky).save(folder / "sky.png")
    photograph(1).save(folder / "other.png")
    collect.collect(str(folder), tmp_path / "out", PARAMETERS)
    assert json.loads((tmp_path / "out" / "info.json").read_text())["flat_tiles_dropped"] >= 4


@pytest.fixture
def odd(tmp_path):
    """A folder with what people really have: two photographs, a flat one, and six things that nobody can read."""
    folder = tmp_path / "odd $(touch X) `touch X`"
    (folder / "inner").mkdir(parents=True)
    for number, name in enumerate(("a.png", "inner/b.png")):
        photograph(number).save(folder / name)
    Image.new("RGB", (64, 64), (90, 140, 220)).save(folder / "flat.png")
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    (folder / "itself.png").symlink_to(folder / "itself.png")
    (folder / "device.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening, contextlib.chdir(folder):
        listening.bind("socket.png")
    (folder / "linked").symlink_to(folder / "inner")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.png")).write_bytes(b"no picture")
    return folder


ODD = {
    "\\udcff.png": "is not a JPEG, PNG, WebP or TIFF picture that can be read",
    "device.png": "is not a regular file",
    "flat.png": "no tile with enough contrast",
    "itself.png": "cannot be opened: Too many levels of symbolic links",
    "linked": "is a link to a folder, which is not followed",
    "nowhere.png": "cannot be opened: No such file or directory",
    "pipe.png": "is not a regular file",
    "socket.png": "is not a regular file",
}


def test_whatever_lies_in_a_folder_is_in_use_or_named(odd, tmp_path, capsys):
    p = dataclasses.replace(PARAMETERS, max_bad_share=0.7)
    collect.collect(str(odd), tmp_path / "out", p)
    aside = json.loads((tmp_path / "out" / "quarantine.json").read_text())
    assert {one["name"]: one["reason"] for one in aside} == ODD
    assert set(manifest.read(tmp_path / "out")["source"].to_pylist()) == {"a.png", "inner/b.png"}
    said = capsys.readouterr().err
    assert all(f"photos: set aside: {name!r} {reason}\n" in said for name, reason in ODD.items())


def test_a_listed_folder_gives_the_bytes_of_the_folder_and_nothing_that_changed(odd, tmp_path):
    p = dataclasses.replace(PARAMETERS, max_bad_share=0.7)
    listed = tmp_path / "own.listing"
    listed.write_text(listing.text(str(odd), listing.of(odd)), encoding="ascii")
    for source, out in ((odd, "direct"), (listed, "listed")):
        collect.collect(str(source), tmp_path / out, p)
    assert digests(tmp_path / "direct") == digests(tmp_path / "listed")
    photograph(9).save(odd / "later.png")  # is not in the list
    collect.collect(str(listed), tmp_path / "again", p)
    assert digests(tmp_path / "again") == digests(tmp_path / "direct")
    (odd / "a.png").write_bytes((odd / "later.png").read_bytes())
    with pytest.raises(UserError, match=r"a\.png is not as the run listed it"):
        collect.collect(str(listed), tmp_path / "changed", p)
    (odd / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png is not as the run listed it"):
        collect.collect(str(listed), tmp_path / "changed", p)
    shutil.rmtree(odd)
    with pytest.raises(UserError, match="is not on this machine"):
        collect.collect(str(listed), tmp_path / "changed", p)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "x",
        '{"name": "a"}',
        '{"name": "../a", "sha256": "0"}',
        '{"name": "a", "sha256": 3}',
        '{"name": "/a", "x": 1}',
    ],
)
def test_a_list_that_is_none_is_named(tmp_path, line):
    (tmp_path / "own.listing").write_text(f'{{"folder": "."}}\n{line}\n' if line else "")
    with pytest.raises(UserError, match=r"own\.listing"):
        listing.read(tmp_path / "own.listing")


def test_a_photograph_that_no_tile_is_taken_from_is_named(tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(4):
        photograph(number).save(folder / f"{number}.png")
    collect.collect(str(folder), tmp_path / "out", dataclasses.replace(PARAMETERS, count=3))
    used = set(manifest.read(tmp_path / "out")["source"].to_pylist())
    (unused,) = json.loads((tmp_path / "out" / "quarantine.json").read_text())
    assert {unused["name"]} == {f"{number}.png" for number in range(4)} - used
    assert unused["reason"] == "is not needed: photos.count = 3 tiles come from the others"


def test_the_benchmark_never_enters_the_pool(tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    photograph(0).save(folder / "a.png")
    photograph(1).save(folder / "b.png")
    left, right = (Image.fromarray(view) for view in benchmark.views())
    left.resize((370, 250)).save(folder / "a smaller copy.jpg", quality=70)
    right.save(folder / "right.png")
    collect.collect(str(folder), tmp_path / "out", PARAMETERS)
    assert set(manifest.read(tmp_path / "out")["source"].to_pylist()) == {"a.png", "b.png"}
    aside = json.loads((tmp_path / "out" / "quarantine.json").read_text())
    assert [entry["name"] for entry in aside] == ["a smaller copy.jpg", "right.png"]


def test_the_benchmark_holds_metric_inverse_depth(tmp_path):
    benchmark.write_motorcycle(tmp_path)
    image, disparity, valid = benchmark.load_motorcycle(tmp_path)
    assert image.shape == (500, 741, 3)
    assert image.dtype == np.uint8
    assert disparity.dtype == np.float32
    assert 0.92 < valid.mean() < 0.93
    z = 1 / disparity[valid]
    assert (round(float(z.min()), 2), round(float(z.max()), 2)) == (2.11, 5.02)  # metres
    (tmp_path / "motorcycle.npy").write_bytes(b"broken")
    with pytest.raises(UserError, match="no readable motorcycle benchmark"):
        benchmark.load_motorcycle(tmp_path)


def test_too_many_bad_files_stop_the_stage_without_a_manifest(tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    photograph(0).save(folder / "a.png")
    for name in ("b.jpg", "c.jpg", "d.jpg"):
        (folder / name).write_bytes(b"broken")
    with pytest.raises(UserError, match="3 of 4 files cannot be used, more than photos.max_bad_share"):
        collect.collect(str(folder), tmp_path / "out", PARAMETERS)
    assert not (tmp_path / "out" / "manifest.parquet").exists()
    assert len(json.loads((tmp_path / "out" / "quarantine.json").read_text())) == 3


def test_the_command_ends_with_one_line_for_a_users_mistake(tmp_path):
    code.put(tmp_path)
    values = {name: value for name, value in dataclasses.asdict(PARAMETERS).items() if name != "seed"}
    (tmp_path / "params.yaml").write_text(json.dumps({"seed": 0, "photos": values | {"source": "gone"}}))
    command = [sys.executable, "-m", "data.photos.collect", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr == "error: photos.source: gone does not exist; name a folder by its whole path, or a list in git\n"
    )
    assert not (tmp_path / "out").exists()
