"""A set of pictures is the same whatever form it is given in, and each form says in one line what is wrong with it."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.core import manifest
from data.core.params import UserError
from data.core.samples import Samples
from data.pictures import make
from tests import given

OUT = Path("artifacts/images/birds")
FORMS = {"tree": given.tree, "tars": given.tars, "parquet": given.parquet, "table": given.table}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REMINT_WORKERS", "1")
    monkeypatch.setenv("REMINT_CHECKPOINTS", str(tmp_path / "kept"))


def made(source: Path, out: Path = OUT, **changed: object) -> list[dict]:
    """The manifest's rows of a set that is listed and made."""
    given.listed(source)
    make.make("birds", given.parameters(source, **changed), out)
    return manifest.read(out).to_pylist()


def refused(source: Path, **changed: object) -> str:
    with pytest.raises(UserError) as error:
        made(source, **changed)
    assert "\n" not in str(error.value)
    return str(error.value)


def quarantine() -> dict[str, str]:
    return {one["name"]: one["reason"] for one in json.loads((OUT / "quarantine.json").read_text())}


def info() -> dict:
    return json.loads((OUT / "info.json").read_text())


def test_every_form_gives_one_manifest_but_for_its_source(tmp_path: Path) -> None:
    pictures = given.pictures()
    found = {form: made(write(tmp_path / form, pictures), tmp_path / f"made-{form}") for form, write in FORMS.items()}
    assert len(found["tree"]) == 60
    assert len({row["source"] for row in found["tree"]}) == 60
    for rows in found.values():
        assert [row | {"source": ""} for row in rows] == [row | {"source": ""} for row in found["tree"]]
    files = {form: [file.read_bytes() for file in sorted((tmp_path / f"made-{form}").glob("*.tar"))] for form in FORMS}
    assert all(len(shards) == 4 and shards == files["tree"] for shards in files.values())


def test_the_models_read_what_it_writes(tmp_path: Path) -> None:
    made(given.tree(tmp_path / "tree", given.pictures()))
    samples = Samples(OUT, "train")
    assert samples.class_names == list(given.CLASSES)
    assert samples.images().shape[1:] == (32, 32, 3)
    assert {row["split"] for row in manifest.read(OUT).to_pylist()} == {"train", "val"}
    assert info()["counts"] == {"bird": 20, "cat": 20, "dog": 20}
    assert info()["licences"] == {"CC0-1.0": 60}
    assert info()["enlarged"] == 15
    assert Image.open(OUT / "sheet.png").width > 500
    assert sorted(path.name for path in OUT.iterdir() if path.name.startswith(".")) == []


def test_a_flat_folder_has_no_class(tmp_path: Path) -> None:
    for _, name, data in given.pictures(8):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "flat").mkdir()
    for path in tmp_path.glob("0*"):
        path.rename(tmp_path / "flat" / path.name)
    rows = made(tmp_path / "flat")
    assert {(row["label"], row["class_name"]) for row in rows} == {(-1, "")}
    assert info()["without_class"] == 8
    assert (Samples(OUT).labels == -1).all()


def test_a_picture_is_cut_and_resized_by_its_bytes_and_the_seed_alone(tmp_path: Path) -> None:
    source = given.tree(tmp_path / "tree", given.pictures(12))
    boxes = {}
    for crop, seed in (("centre", 1), ("centre", 2), ("random", 1), ("random", 2)):
        made(source, crop=crop, seed=seed)
        boxes[crop, seed] = [json.loads(Samples(OUT).members(i)["json"])["box"] for i in range(12)]
    assert boxes["centre", 1] == boxes["centre", 2]
    assert boxes["random", 1] != boxes["random", 2]
    assert [0, 0, 32, 32] in boxes["random", 1]


def test_copies_are_taken_once_and_a_copy_of_another_class_is_a_mistake(tmp_path: Path) -> None:
    source = given.tree(tmp_path / "tree", given.pictures(12))
    first, other = (source / "bird/000.png").read_bytes(), (source / "cat/004.png").read_bytes()
    (source / "bird/copy.png").write_bytes(first)
    (source / "dog/copy.png").write_bytes(other)
    rows = made(source)
    assert len(rows) == len({row["sha256"] for row in rows}) == 12
    assert quarantine() == {
        "bird/copy.png": "is the same picture as bird/000.png",
        "dog/copy.png": "is the same picture as cat/004.png, of another class (2, 1)",
    }
    assert info()["bad"] == 1


def test_near_duplicates_never_lie_on_both_sides(tmp_path: Path) -> None:
    source = given.tree(tmp_path / "tree", given.pictures(30))
    for path in sorted(source.rglob("*.png")):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB")).copy()
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(path.with_name(f"near-{path.name}"))
    rows = made(source)
    sides = {row["source"].replace("near-", ""): set() for row in rows}
    for row in rows:
        sides[row["source"].replace("near-", "")].add(row["split"])
    assert len(rows) == 45
    assert all(len(side) == 1 for side in sides.values())
    assert set.union(*sides.values()) == {"train", "val"}


def test_a_class_of_one_picture_is_trained_on_and_one_of_none_is_no_class(tmp_path: Path) -> None:
    source = given.tree(tmp_path / "tree", given.pictures(12))
    for i in range(6):
        given.tree(source, [(f"rare-{i}", "one.png", given.picture(500 + i))])
    (source / "empty").mkdir()
    rows = made(source, held_out_share=0.6)
    assert {row["split"] for row in rows if row["class_name"].startswith("rare")} == {"train"}
    assert "empty" not in info()["classes"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["cat/deep/a.png", "cat/b.png"], "class folder 'cat' holds folders"),
        (["Cat/a.png", "cat/b.png"], "classes 'Cat' and 'cat' differ only in case"),
        (["a.tar", "b.parquet"], "holds .parquet, .tar beside each other"),
        (["notes.txt"], "holds no files"),
        ([], "holds no files"),
    ],
)
def test_a_folder_that_says_no_classes_is_refused(tmp_path: Path, files: list[str], said: str) -> None:
    (tmp_path / "set").mkdir()
    for i, name in enumerate(files):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(given.picture(i))
    assert said in refused(tmp_path / "set")


def test_what_is_no_picture_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    source = given.tree(tmp_path / "tree", given.pictures(12))
    whole = (source / "bird/000.png").read_bytes()
    for name, data in {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not a picture"}.items():
        (source / "bird" / f"{name}.png").write_bytes(data)
    (source / "cat/huge.png").write_bytes(given.picture(77, 1200, 1000))
    rows = made(source, max_bad_share=0.5)
    assert len(rows) == 12
    assert quarantine()["bird/empty.png"] == "is empty"
    assert "cannot be decoded" in quarantine()["bird/cut.png"]
    assert "is not a JPEG, PNG" in quarantine()["bird/text.png"]
    assert "1200 x 1000 pixels, more than 1000000" in quarantine()["cat/huge.png"]
    assert "4 of 16 pictures cannot be used, more than images.sets.birds.max_bad_share = 0.1" in refused(
        source, max_bad_share=0.1
    )


def test_labels_outside_the_map_are_mistakes_and_none_is_no_class(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": given.picture(i), "path": None}, "label": label}
        for i, label in enumerate([0, 1, 1, 0, -1, None, 7, 0, 1, 0])
    ]
    names = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["a", "b"]}}}})}
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(names), tmp_path / "some.parquet")
    found = made(tmp_path / "some.parquet")
    assert Counter(row["class_name"] for row in found) == {"a": 4, "b": 3, "": 2}
    assert quarantine() == {"some.parquet/00000006": "has label 7, but the classes are 0 to 1"}


def test_tars_without_labels_give_no_class(tmp_path: Path) -> None:
    given.tar(tmp_path / "set.tar", [(name, data) for _, name, data in given.pictures(6)])
    assert {row["label"] for row in made(tmp_path / "set.tar")} == {-1}


def test_labels_in_tars_are_indices_into_classes_txt(tmp_path: Path) -> None:
    pictures = given.pictures(6)
    members = [(f"{i}.{suffix}", data) for i, (_, _, one) in enumerate(pictures)
               for suffix, data in (("webp" if i % 2 else "png", one), ("cls", b"%d" % (i % 2)))]  # fmt: skip
    given.tar(tmp_path / "set/a.tar", members)
    assert {row["class_name"] for row in made(tmp_path / "set")} == {"0", "1"}
    (tmp_path / "set/classes.txt").write_text("crow\njay\n")
    assert {row["class_name"] for row in made(tmp_path / "set")} == {"crow", "jay"}


def test_members_of_tars_that_are_no_sample_are_set_aside(tmp_path: Path) -> None:
    members = [(name, data) for _, name, data in given.pictures(20)]
    members += [("two.jpg", given.picture(90)), ("two.png", given.picture(91)), ("../out.png", given.picture(92))]
    members += [("odd.png", given.picture(93)), ("odd.json", b"{")]
    with tarfile.open(given.tar(tmp_path / "set.tar", members), "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link, io.BytesIO())
    assert len(made(tmp_path / "set.tar")) == 20
    assert quarantine() == {
        "set.tar/../out.png": "leaves its folder, and is not read",
        "set.tar/link.png": "is a link or a device, and is not read",
        "set.tar/odd": "has a json that cannot be read",
        "set.tar/two": "has 2 pictures under one key",
    }


def test_a_tar_that_is_cut_off_is_named(tmp_path: Path) -> None:
    whole = given.tar(tmp_path / "set.tar", [(n, d) for _, n, d in given.pictures(6)]).read_bytes()
    (tmp_path / "set.tar").write_bytes(whole[:1000])
    assert "set.tar is not a whole tar archive" in refused(tmp_path / "set.tar")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"picture": b"x", "label": 1}], "has no column 'image', only picture, label; rename"),
        ([{"image": "https://example.org/a.jpg"}], "image must hold bytes, not string"),
        ([{"image": {"bytes": None, "path": "https://example.org/a.jpg"}}], "image must hold bytes, not struct"),
        ([{"image": {"bytes": b"", "path": "a.jpg"}}], "has no bytes, only an address; download"),
    ],
)
def test_a_parquet_without_pictures_is_refused(tmp_path: Path, rows: list[dict], said: str) -> None:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "some.parquet")
    assert said in refused(tmp_path / "some.parquet")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.png,1\n", "all.csv:1 must name the columns path and label"),
        ("path,label\n../a.png,1\n", "all.csv:2: '../a.png' is no file below"),
        ("path,label\ngone.png,1\n", "all.csv:2: 'gone.png' is no file below"),
    ],
)
def test_a_table_that_names_no_pictures_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "a.png").write_bytes(given.picture(1))
    (tmp_path / "set/all.csv").write_text(text)
    assert said in refused(tmp_path / "set/all.csv")
