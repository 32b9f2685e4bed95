"""Stage validate: sound data passes, broken data stops the graph with expectation, column and rows named."""

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from data.core import manifest, shards
from data.core.params import UserError
from data.core.samples import encode_disparity, encode_png
from data.validate.check import check
from data.validate.params import Validate

pytestmark = pytest.mark.integration

PARAMETERS = Validate(
    max_class_imbalance=0.25, min_valid_share=0.05, duplicate_distance=2, max_duplicate_share=0.02, max_drift=0.25
)
CLASSES = ["glass", "wires"]


def write_data(folder, kind, count=60, change=lambda rows: None, brightness=0):
    """A small data folder of noise pictures; `change` may break the manifest's rows before they are written."""
    rng = np.random.default_rng(len(kind))
    pictures = {
        f"{i:08d}": rng.integers(0, 180, (8, 9, 3)).repeat(2, 0).repeat(2, 1) + brightness for i in range(count)
    }
    pictures = {key: picture.astype(np.uint8) for key, picture in pictures.items()}
    disparity = encode_disparity(np.full((16, 18), 0.5))
    members = [(key, {"rgb.png": encode_png(p), "disp.png": disparity}) for key, p in pictures.items()]
    entries = shards.write(folder, kind, members, per_shard=40)
    scenes = kind == "scenes"
    rows = [
        manifest.row(
            entry,
            pictures[entry.key],
            source="mitsuba" if scenes else "a.jpg",
            licence="CC0-1.0",
            label=i % 2 if scenes else -1,
            class_name=CLASSES[i % 2] if scenes else "",
            split="val" if i % 5 == 0 else "train",
            depth_min=1.0 if scenes else None,
            depth_max=9.0 if scenes else None,
            valid_share=0.8 if scenes else None,
        )
        for i, entry in enumerate(entries)
    ]
    change(rows)
    manifest.write(rows, folder)
    (folder / "info.json").write_text(json.dumps({"classes": CLASSES if scenes else []}))


def run(tmp_path, change=lambda rows: None, previous=None, out="out", **options):
    write_data(tmp_path / "scenes", "scenes", change=change, **options)
    write_data(tmp_path / "photos", "photos")
    check(tmp_path / "scenes", tmp_path / "photos", tmp_path / out, PARAMETERS, previous)
    return json.loads((tmp_path / out / "report.json").read_text())


def failures(tmp_path, change):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "approved.json").write_text("of an earlier run")
    with pytest.raises(UserError) as caught:
        run(tmp_path, change)
    assert (tmp_path / "out" / "docs" / "index.html").exists()  # the pages show what the message names
    assert json.loads((tmp_path / "out" / "report.json").read_text())["success"] is False
    assert not (tmp_path / "out" / "approved.json").exists()
    return str(caught.value)


def test_sound_data_passes_and_leaves_the_same_bytes_twice(tmp_path):
    found = run(tmp_path)
    assert found["success"] is True
    assert found["critical_failed"] == found["warnings"] == 0
    assert found["facts"]["drift (PSI)"] == "no previous version"
    run(tmp_path, out="again")
    first, second = (
        {p.relative_to(tmp_path / name): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
        for name in ("out", "again")
        for files in [sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())]
    )
    assert first == second
    names = {p.as_posix() for p in first}
    pages = {f"docs/{name}.html" for name in ("index", "scenes", "photos", "classes")}
    assert names == {"report.json", "approved.json", "statistics.json", "figures/statistics.png", *pages}


def test_the_pages_open_from_disk_without_the_network(tmp_path):
    run(tmp_path)
    for page in (tmp_path / "out" / "docs").glob("*.html"):
        text = page.read_text()
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', text), page
        assert "<script" not in text
        for target in re.findall(r'(?:src|href)="([^"#]+)"', text):
            assert (page.parent / target).exists(), (page, target)


BROKEN = [  # row, column, value, and what the message must say of it (the digests of 19 and 23 fail too)
    (7, "brightness", 1.7, "expect_column_values_to_be_between on brightness failed in 1 row, first 00000007 (1.7)"),
    (8, "valid_share", 0.01, "on valid_share failed in 1 row, first 00000008 (0.01)"),
    (9, "depth_min", -1.0, "on depth_min failed in 1 row, first 00000009 (-1.0)"),
    (11, "depth_max", 0.5, "on depth_max, depth_min failed in 1 row, first 00000011"),
    (12, "split", "test", "expect_column_distinct_values_to_equal_set on split failed"),
    (13, "key", "00000014", "expect_column_values_to_be_unique on key failed in 2 rows, first 00000014"),
    (16, "sha256", "f" * 64, "on sha256_on_disk, sha256 failed in 3 rows, first 00000016"),
    (17, "width", 17, "on width failed; observed 2"),
    (18, "licence", None, "expect_column_values_to_not_be_null on licence failed in 1 row, first 00000018"),
    (19, "bytes", 0, "expect_column_values_to_be_between on bytes failed in 1 row, first 00000019 (0)"),
    (22, "dhash", None, "expect_column_values_to_not_be_null on dhash failed in 1 row, first 00000022"),
    (23, "shard", None, "expect_column_values_to_not_be_null on shard failed in 1 row, first 00000023"),
    (24, "brightness", None, "expect_column_values_to_not_be_null on brightness failed in 1 row, first 00000024"),
    (21, "label", -1, "expect_column_values_to_be_between on label failed in 1 row, first 00000021 (-1)"),
]


@pytest.fixture(scope="module")
def message_of_broken_rows(tmp_path_factory):
    def change(rows):
        for row, column, value, _ in BROKEN:
            rows[row][column] = value

    return failures(tmp_path_factory.mktemp("broken"), change)


@pytest.mark.parametrize("expected", [row[-1] for row in BROKEN], ids=[f"{row[1]} {row[2]}" for row in BROKEN])
def test_a_broken_row_is_named_with_column_and_value(message_of_broken_rows, expected):
    assert expected in message_of_broken_rows


def test_twins_across_the_split_stop_the_graph(tmp_path):
    def change(rows):
        for held_out in (5, 10):
            rows[held_out]["dhash"] = rows[1]["dhash"]

    assert "duplicate_distance failed in 2 rows, first 00000005 (0), 00000010 (0)" in failures(tmp_path, change)


def test_a_class_that_is_missing_altogether_is_noticed(tmp_path):
    def change(rows):
        for row in rows:
            row["class_name"] = "glass"

    message = failures(tmp_path, change)
    assert "classes: expect_column_values_to_be_between on relative failed in 2 rows" in message
    assert "wires (0.0)" in message


def test_a_missing_shard_is_named_by_its_samples(tmp_path):
    write_data(tmp_path / "scenes", "scenes")
    write_data(tmp_path / "photos", "photos")
    (tmp_path / "scenes" / "scenes-00001.tar").unlink()
    with pytest.raises(UserError, match="sha256 failed in 20 rows, first 00000040"):
        check(tmp_path / "scenes", tmp_path / "photos", tmp_path / "out", PARAMETERS, None)


def test_drift_against_the_previous_version_stops_the_graph_and_says_what_to_do(tmp_path):
    run(tmp_path)
    before = tmp_path / "out" / "statistics.json"
    with pytest.raises(UserError, match=r"drift: .* on psi failed in 1 row, first scenes.brightness.*statistics.json"):
        run(tmp_path, previous=before, out="moved", brightness=60)


def test_an_approval_changes_with_the_data_and_not_with_the_thresholds(tmp_path):
    def approval(name, parameters):
        check(tmp_path / "scenes", tmp_path / "photos", tmp_path / name, parameters, None)
        return (tmp_path / name / "approved.json").read_text()

    write_data(tmp_path / "scenes", "scenes")
    write_data(tmp_path / "photos", "photos")
    first = approval("a", PARAMETERS)
    assert approval("b", dataclasses.replace(PARAMETERS, max_duplicate_share=0.5)) == first
    write_data(tmp_path / "scenes", "scenes", brightness=1)
    assert approval("c", PARAMETERS) != first


def test_a_warning_is_printed_and_does_not_stop(tmp_path, capsys):
    def change(rows):
        rows[7]["contrast"] = 0.001

    found = run(tmp_path, change)
    assert found["success"] is True
    assert found["warnings"] == 1
    assert "warning: scenes: expect_column_values_to_be_between on contrast failed in 1 row" in capsys.readouterr().err


def test_a_missing_manifest_says_which_stage_to_run(tmp_path):
    with pytest.raises(UserError, match="manifest.parquet does not exist"):
        check(tmp_path / "scenes", Path("photos"), tmp_path / "out", PARAMETERS, None)
