"""Sets in params.yaml: what their values may be; and the parts of making one that need no files."""

import copy
from pathlib import Path

import pytest

from data.core import params
from data.core.params import UserError
from data.pictures import check, listing, places, splits
from data.pictures.classes import of as classes_of
from models import sections

ROOT = Path(__file__).parents[2]
WHOLE = params.read(ROOT / "params.yaml")
SET = {
    "source": "/pictures",
    "size": 64,
    "crop": "centre",
    "licence": "",
    "held_out_share": 0.1,
    "per_shard": 1000,
    "max_bad_share": 0.2,
    "max_pixels": 10**8,
}
NAN = float("nan")
BAD = [
    ("source", ""), ("source", None), ("source", 3), ("size", 0), ("size", 8), ("size", 40), ("size", 8192),
    ("size", 1.5), ("crop", "center"), ("crop", None), ("licence", None), ("held_out_share", 0), ("held_out_share", 1),
    ("held_out_share", NAN), ("per_shard", 0), ("per_shard", 10**8), ("max_bad_share", -0.1), ("max_bad_share", 1.1),
    ("max_pixels", 100), ("max_pixels", "many"), ("sice", 64),
]  # fmt: skip


def judged(pictures: object = "artifacts/scenes", **sets: object) -> dict:
    values = copy.deepcopy(WHOLE) | {"pictures": pictures, "images": {"sets": sets}}
    return check.judge(values, "params.yaml")


@pytest.mark.parametrize(("key", "value"), BAD, ids=str)
def test_a_value_that_no_set_could_have_is_one_line_that_names_it(key: str, value: object) -> None:
    with pytest.raises(UserError) as error:
        judged(birds=SET | {key: value})
    said = str(error.value)
    assert said.startswith("params.yaml: images.sets.birds")
    assert key in said
    assert "\n" not in said


def test_a_set_that_is_meant_passes_and_can_be_chosen() -> None:
    assert judged("artifacts/images/birds", birds=SET)["birds"].seed == WHOLE["seed"]
    assert judged() == {}


@pytest.mark.parametrize("images", [None, [], {"sets": None}, {"sets": {}, "size": 3}, {"set": {}}])
def test_a_section_of_another_shape_is_refused(images: object) -> None:
    with pytest.raises(UserError, match="images must be a section with the one section sets"):
        check.judge(WHOLE | {"images": images}, "params.yaml")


@pytest.mark.parametrize("name", ["Birds", "a b", "-a", "a/b", "$(true)", "", "ä", "x" * 65])
def test_a_name_that_a_shell_could_take_for_something_else_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be the name of a set"):
        judged(**{name: SET})


def test_groups_of_near_duplicates_reach_through_others_and_no_further() -> None:
    near = [f"{value:016x}" for value in (0, 0b111, 0b111_111, 1 << 63, 0xFF << 20)]
    assert splits.groups(near) == [0, 0, 0, 0, 4]
    assert splits.groups([near[0], near[2], near[0]]) == [0, 1, 0]


def test_pictures_that_are_all_alike_cannot_be_split() -> None:
    with pytest.raises(UserError, match="at least two different pictures are needed"):
        splits.of(["a", "b"], [0, 0], ["0" * 16, "0" * 15 + "1"], 0.5)


def test_labels_beside_names_are_names_and_numbers_alone_are_indices() -> None:
    assert classes_of([2, None, 0], None, "x").names == ("0", "1", "2")
    assert classes_of([3, "cat"], None, "x").names == ("3", "cat")
    assert classes_of([1], ["a", "b"], "x").index(1) == 1


def test_many_files_in_one_folder_are_listed_and_read_back(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for i in range(5000):
        (tmp_path / "many" / f"{i:05d}.png").touch()
    place, single = places.open(str(tmp_path / "many"), "source")
    listed = listing.of(place, single, "source")
    (tmp_path / "many.listing").write_text(listing.text(listed))
    assert listing.read(tmp_path / "many.listing") == listed
    assert len(listed.files) == 5000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1 is not a JSON object"),
        ('{"kind": "zip"}\n', "1 must say a kind"),
        ('{"kind": "tars"}\n{"name": "../a", "bytes": 1, "mark": "x"}\n', ":2: '../a' must have a place in the set"),
        ('{"kind": "tars"}\n{"name": "a", "bytes": 1}\n', ":2: 'a' must have a place in the set and either"),
        ('{"kind": "tars"}\n{"name": "a", "byte": 1}\n', "did you mean 'bytes'"),
        ("ä", "cannot be read"),
    ],
)
def test_a_list_that_is_none_names_the_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "birds.listing").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as error:
        listing.read(tmp_path / "birds.listing")
    assert said in str(error.value)


def test_the_size_of_the_chosen_set_has_to_fit_the_tokenizer() -> None:
    whole = copy.deepcopy(WHOLE) | {"images": {"sets": {"birds": SET | {"size": 80}}}}
    whole["warmup"]["patch"] = 32
    sections.judge(whole, "params.yaml")  # scenes are of 64 pixels
    with pytest.raises(UserError, match=r"images\.sets\.birds\.size is 80, no multiple of warmup\.patch \(32\)"):
        sections.judge(whole | {"pictures": "artifacts/images/birds"}, "params.yaml")
