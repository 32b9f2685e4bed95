"""Photographs that arrive: full shards never change, each photograph comes once, whatever it is called."""

import hashlib
import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.core import manifest, stores
from data.core.params import UserError
from data.core.samples import Samples
from data.photos import append, arrivals, collect, decode
from data.photos.arrivals import Arrival, Arrivals
from data.photos.params import Photos

pytestmark = pytest.mark.integration

PARAMETERS = Photos(
    source="",
    size=32,
    count=2,
    held_out_share=0.3,
    min_contrast=0.02,
    max_bad_share=0.5,
    max_pixels=1_000_000,
    seed=0,
    per_photo=7,
)
NAMES = [
    "a b.jpg",
    "line\nbreak.jpg",
    "../../outside.jpg",
    "Ä" * 300 + ".jpg",
    "/etc/passwd",
    "",
    "same.jpg",
    "same.jpg",
]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(append, "PER_SHARD", 10)


@pytest.fixture
def pool(production):
    """A place for photographs: a folder, then a bucket."""
    return production


def photograph(seed: int, width: int = 120, height: int = 90) -> bytes:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    if seed % 4 == 3:
        small[:, 4:] = 90  # half of it flat
    picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def arrive(pool: str, content: bytes, name: str, tmp_path: Path) -> Arrival:
    one = Arrival(hashlib.sha256(content).hexdigest(), len(content), name, licence="CC0-1.0")
    store = stores.open(pool)
    with store.scratch() as scratch:
        (scratch / "file").write_bytes(content)
        store.put(scratch / "file", one.place)
    return one


def some(pool: str, count: int, tmp_path: Path) -> list[Arrival]:
    return [arrive(pool, photograph(seed), NAMES[seed % len(NAMES)], tmp_path) for seed in range(count)]


def make(tmp_path: Path, pool: str, listed: list[Arrival], out: str, **changes) -> Path:
    path = tmp_path / "now.arrivals"
    path.write_text(arrivals.text(Arrivals(pool, tuple(listed))), encoding="utf-8")
    collect.collect(str(path), tmp_path / out, replace(PARAMETERS, **changes))
    return tmp_path / out


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_arrives_later_leaves_full_shards_as_they_are(tmp_path, pool, monkeypatch):
    listed = some(pool, 14, tmp_path)
    before = files(make(tmp_path, pool, listed[:8], "grown"))
    read = []
    load = decode.load
    monkeypatch.setattr(decode, "load", lambda path, most: read.append(path) or load(path, most))
    grown = files(make(tmp_path, pool, listed, "grown"))
    assert len(read) == 14 - 7  # of the first eight only the one that the last full shard shares with the next
    full = [shard["name"] for shard in json.loads(before["shards.json"])["shards"]]
    assert len(full) > 2
    assert {name: before[name] for name in full} == {name: grown[name] for name in full}
    assert grown == files(make(tmp_path, pool, listed, "anew"))
    rows = manifest.read(tmp_path / "grown").to_pylist()
    assert len({row["key"] for row in rows}) == len(rows)
    assert {row["source"] for row in rows} == {one.name for one in listed}
    was = {row["key"]: row["split"] for row in pq.read_table(tmp_path / "anew" / "manifest.parquet").to_pylist()}
    assert all(was[row["key"]] == row["split"] for row in rows)
    assert len(Samples(tmp_path / "grown", "val").images()) > 5
    assert not (tmp_path / "outside.jpg").exists()
    assert not (tmp_path / "grown" / append.FRESH).exists()


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "pool")


def test_splits_never_move(tmp_path, folder):
    listed = some(folder, 12, tmp_path)
    splits = []
    for count in (2, 3, 12):
        rows = manifest.read(make(tmp_path, folder, listed[:count], f"of {count}")).to_pylist()
        splits.append({row["key"]: row["split"] for row in rows})
    assert splits[0].items() <= splits[1].items() <= splits[2].items()
    assert set(splits[0].values()) == {"train", "val"}


def test_a_shard_that_was_damaged_or_made_otherwise_is_made_again(tmp_path, folder):
    listed = some(folder, 8, tmp_path)
    whole = files(make(tmp_path, folder, listed, "out"))
    shard = tmp_path / "out" / "photos-00001.tar"
    shard.write_bytes(b"hurt" + shard.read_bytes()[4:])
    assert files(make(tmp_path, folder, listed, "out")) == whole
    other = files(make(tmp_path, folder, listed, "out", seed=1))
    assert other["photos-00000.tar"] != whole["photos-00000.tar"]
    assert files(make(tmp_path, folder, listed, "out")) == whole
    fewer = files(make(tmp_path, folder, listed[:3], "out"))
    assert fewer == files(make(tmp_path, folder, listed[:3], "anew"))


def test_what_gives_no_tiles_is_named_and_changes_nothing_before_it(tmp_path, folder):
    good = some(folder, 6, tmp_path)
    bad = [arrive(folder, content, name, tmp_path) for content, name in ((b"no picture", "no\nte"), (b"", "empty"))]
    tiny = arrive(folder, photograph(50, 20, 20), "tiny.png", tmp_path)
    out = make(tmp_path, folder, [*good[:4], *bad, *good[4:], tiny], "out")
    aside = {one["name"]: one["reason"] for one in json.loads((out / "quarantine.json").read_text())}
    assert aside == {
        "no\nte": "is not a JPEG, PNG, WebP or TIFF picture that can be read",
        "empty": "is empty",
        "tiny.png": "has 20 x 20 pixels, less than a tile of 32",
    }
    plain = files(make(tmp_path, folder, good, "plain"))
    assert {k: v for k, v in files(out).items() if k.endswith(".tar")} == {
        k: v for k, v in plain.items() if k.endswith(".tar")
    }
    with pytest.raises(UserError, match="2 of 4 files cannot be used"):
        make(tmp_path, folder, [*good[:2], *bad], "none", max_bad_share=0.2)


def test_a_photograph_that_the_pool_lacks_or_changed_is_the_users_error(tmp_path, pool):
    listed = some(pool, 3, tmp_path)
    gone = replace(listed[0], sha256="0" * 64)
    with pytest.raises(UserError, match="lacks 00/0000.*which the list says has arrived"):
        make(tmp_path, pool, [*listed, gone], "out")
    arrive(pool, photograph(9), "x", tmp_path)
    store = stores.open(pool)
    with store.scratch() as scratch:
        (scratch / "file").write_bytes(photograph(10))
        store.put(scratch / "file", listed[1].place)
    with pytest.raises(UserError, match="has other bytes, of SHA-256"):
        make(tmp_path, pool, listed, "out")
    assert not (tmp_path / "out" / "manifest.parquet").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ":1 is not a JSON object"),
        ("{}\n", ':1 must be {"pool"'),
        ('{"pool": "x"}\n{"sha256": "12"', "is cut off"),
        ('{"pool": "x"}\n[]\n', ":2 is not a JSON object"),
        ('{"pool": "x", "pool": "y"}\n', ":1 is not a JSON object in which each name stands once"),
        ('{"pool": "x"}\n' + '{"a":' * 100_000 + "\n", ":2 is not a JSON object"),
        ('{"pool": "x"}\n{"sha256": "12", "bytes": 1, "name": "a"}\n', ":2: sha256 must be 64 hex digits"),
        ('{"pool": "x"}\n{"sha": "12", "bytes": 1, "name": "a"}\n', "did you mean 'sha256'"),
        ('{"pool": "x"}\n', "lists no photographs"),
    ],
)
def test_a_wrong_list_says_where(tmp_path, content, message):
    (tmp_path / "list.arrivals").write_text(content)
    with pytest.raises(UserError, match=message):
        collect.collect(str(tmp_path / "list.arrivals"), tmp_path / "out", PARAMETERS)


def test_a_list_needs_a_number_of_tiles_for_each_photograph(tmp_path, folder):
    with pytest.raises(UserError, match="photos.per_photo must say how many tiles"):
        make(tmp_path, folder, some(folder, 2, tmp_path), "out", per_photo=None)


def test_a_list_reads_back_as_it_was_written(tmp_path):
    listed = Arrivals("s3://bucket/prefix", tuple(Arrival(f"{n:064x}", n, name) for n, name in enumerate(NAMES)))
    (tmp_path / "a.arrivals").write_text(arrivals.text(listed), encoding="utf-8")
    assert arrivals.read(tmp_path / "a.arrivals") == listed
