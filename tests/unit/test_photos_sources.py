"""Sources: a folder or a YAML list; what is wrong with either is said in one line."""

import errno

import pytest

from data.core.params import UserError
from data.photos import listing, sources
from data.photos.collect import SetAside, check_share, splits


def test_the_built_in_list_names_licence_and_author_of_every_photograph():
    photos = sources.find("data/photos/wheels.yaml")
    assert len(photos) >= 6
    assert all(p.title and p.author and p.licence and p.url and p.path.exists() for p in photos)
    text = sources.attribution(photos)
    assert "danielbuechele" in text
    assert "vultilion" in text
    assert text.count("CC-BY-2.0") == 2
    assert not any("motorcycle" in p.name for p in photos)


def test_a_folder_is_searched_recursively_in_the_order_of_names(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("z.jpg", "b/a.jpg", "a.png"):
        (tmp_path / name).touch()
    assert [p.name for p in sources.find(tmp_path)] == ["a.png", "b/a.jpg", "z.jpg"]


def test_names_that_are_no_unicode_or_hold_newlines_can_be_written_down(tmp_path):
    (tmp_path / "two\nlines `x`.jpg").touch()
    with open(bytes(tmp_path) + b"/\xff\xfe.jpg", "wb"):  # noqa: PTH123
        pass
    photos = sources.find(tmp_path)
    assert "\\udcff\\udcfe.jpg" in [p.name for p in photos]
    assert len(sources.attribution(photos).splitlines()) == 4 + 2  # one line each, also for a name with a newline
    "".join(p.name for p in photos).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("photos: nothing", "must hold a list named 'photos'"),
        ("photos: [a.jpg]", r"photos\[0\] must be a section"),
        ("photos: [{title: a, file: b, author: c}]", r"photos\[0\].licence is missing"),
        ("photos: [{title: a, file: b, author: c, license: d}]", "did you mean 'licence'"),
        ("photos: [{title: a, file: b, author: c, licence: d, package: no_such_thing}]", "no_such_thing"),
        ("photos: []", "holds no files"),
    ],
)
def test_a_wrong_list_says_where(tmp_path, content, message):
    (tmp_path / "list.yaml").write_text(content)
    with pytest.raises(UserError, match=message):
        sources.find(tmp_path / "list.yaml")


def test_a_missing_or_empty_source_is_the_users_error(tmp_path):
    (tmp_path / "text.txt").touch()
    (tmp_path / "empty").mkdir()
    for name, message in (("gone", "does not exist"), ("text.txt", "neither a folder"), ("empty", "holds no files")):
        with pytest.raises(UserError, match=message):
            sources.find(tmp_path / name)
    with pytest.raises(UserError, match="photos.source is empty"):
        sources.find("")


def test_tiles_of_one_photograph_never_straddle_and_no_split_is_empty():
    for share in (0.0, 0.2, 1.0):
        found = splits([f"{i:012x}" for i in range(5)], share)
        assert set(found.values()) == {"train", "val"}
    many = splits([f"{i:012x}" for i in range(2000)], 0.2)
    assert 0.17 < list(many.values()).count("val") / 2000 < 0.23
    with pytest.raises(UserError, match="at least two usable photographs"):
        splits(["0"], 0.2)


def test_too_many_bad_files_stop_with_the_first_named():
    aside = [SetAside(f"{i}.jpg", "is empty") for i in range(4)] + [SetAside("c.jpg", "is a copy of a.jpg", bad=False)]
    check_share(aside, files=8, max_bad_share=0.5)
    with pytest.raises(UserError, match="4 of 8 files cannot be used.*photos.max_bad_share.*'0.jpg' is empty.*; ..."):
        check_share(aside, files=8, max_bad_share=0.4)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "photos.source is empty"),
        ("/nonexistent", "photos.source: /nonexistent does not exist"),
        ("~/pictures", "is not understood by DVC; write the whole path: /"),
        (__file__, "is neither a folder of photographs nor a YAML list"),
    ],
)
def test_a_source_that_is_none_is_known_before_anything_is_read(source, said):
    with pytest.raises(UserError) as error:
        sources.located(source)
    assert said in str(error.value)


def test_a_file_that_nobody_may_read_is_listed_with_the_reason(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")

    def digest(path):
        if path.name == "b.jpg":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return "0" * 64

    assert listing.of(tmp_path, digest) == {
        "a.jpg": {"sha256": "0" * 64},
        "b.jpg": {"reason": "cannot be opened: Permission denied"},
    }
