"""Parts of a data-parallel stage: which shards they have, and what is said of a mistake."""

import pytest

from data.core import checkpoint_store, entry, partitions
from data.core.params import UserError
from flows.garbage import unfinished
from flows.garbage.place import Place
from flows.settings import Settings

PLACE = f"tokens-{'0' * 16}"


@pytest.fixture
def address(tmp_path, monkeypatch):
    monkeypatch.setenv("REMINT_PART", "")
    return str(tmp_path / "kept" / PLACE)


def write(index):
    return lambda file: file.write_text(f"shard {index}")


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "/2", "1/0", "-1/2", "1/2/3", "a/b", " 1/2", "1/2\n", "١/٢"])
def test_a_part_that_is_none_is_named(text, monkeypatch):
    monkeypatch.setenv("REMINT_PART", text)
    with pytest.raises(UserError, match="REMINT_PART must be NUMBER/COUNT such as 2/4"):
        partitions.asked()


def test_parts_have_every_shard_once(monkeypatch):
    made = []
    for number in range(1, 5):
        monkeypatch.setenv("REMINT_PART", f"{number}/4")
        made += [index for index in range(10) if partitions.asked().has(index)]
    assert sorted(made) == list(range(10))
    monkeypatch.setenv("REMINT_PART", "2/4")
    assert [index for index in range(10) if partitions.asked().has(index)] == [1, 5, 9]


def test_what_is_kept_is_taken_and_the_rest_made(address, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REMINT_PART", "2/2")
    part = partitions.Shards(address, 5, tmp_path / "out")
    assert part.missing == [1, 3]
    part.make(1, write(1))
    with pytest.raises(partitions.Done):
        part.files()
    assert partitions.Shards(address, 5, tmp_path / "out").missing == [3]
    monkeypatch.setenv("REMINT_PART", "")
    whole = partitions.Shards(address, 5, tmp_path / "out")
    assert "going on with 1 of 5 shards done" in capsys.readouterr().err
    assert whole.missing == [0, 2, 3, 4]
    for index in whole.missing:
        whole.make(index, write(index))
    assert [file.read_text() for file in whole.files()] == [f"shard {index}" for index in range(5)]
    assert [(one.stage, one.number) for one in checkpoint_store.unfinished(str(tmp_path / "kept"))] == [("tokens", 4)]
    whole.forget()
    assert not (tmp_path / "kept" / PLACE).exists()
    assert list((tmp_path / "out").iterdir()) == []


def test_shards_of_another_execution_are_not_seen(address, tmp_path):
    one = checkpoint_store.address("tokens", {"batch": 8}, {"scenes": "a"}, ("data",))
    others = [
        checkpoint_store.address("tokens", {"batch": 9}, {"scenes": "a"}, ("data",)),
        checkpoint_store.address("tokens", {"batch": 8}, {"scenes": "b"}, ("data",)),
        checkpoint_store.address("labels", {"batch": 8}, {"scenes": "a"}, ("data",)),
        checkpoint_store.address("tokens", {"batch": 8}, {"scenes": "a"}, ("data", "models")),
    ]
    assert len({one, *others}) == 5
    assert one == checkpoint_store.address("tokens", {"batch": 8}, {"scenes": "a"}, ("data",))
    assert all(checkpoint_store.PLACE.fullmatch(place.rpartition("/")[2]) for place in (one, *others))


def test_a_store_that_refuses_costs_the_whole_stage_a_line_and_the_part_its_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("not a folder")
    address = str(tmp_path / "file" / PLACE)
    monkeypatch.setenv("REMINT_PART", "")
    whole = partitions.Shards(address, 2, tmp_path / "out")
    for index in whole.missing:
        whole.make(index, write(index))
    assert [file.read_text() for file in whole.files()] == ["shard 0", "shard 1"]
    assert capsys.readouterr().err.count("the stage goes on") == 1
    monkeypatch.setenv("REMINT_PART", "1/2")
    part = partitions.Shards(address, 2, tmp_path / "out")
    with pytest.raises(OSError, match="Not a directory"):
        part.make(0, write(0))


def test_a_bucket_that_does_not_answer_ends_a_part_with_one_line(tmp_path, monkeypatch, capsys):
    known = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in {**known, "REMINT_PART": "1/2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        entry.run(lambda: partitions.Shards(f"s3://nobody/{PLACE}", 2, tmp_path), parts=True)
    assert ended.value.code == 1  # may be tried again
    said = capsys.readouterr().err
    assert said.startswith(f"error: s3://nobody/{PLACE}: Could not connect")
    assert said.count("\n") == 1


def test_a_stage_that_has_no_parts_says_so(monkeypatch, capsys):
    monkeypatch.setenv("REMINT_PART", "1/2")
    with pytest.raises(SystemExit) as ended:
        entry.run(lambda: None)
    assert ended.value.code == 2
    assert "is not made in parts" in capsys.readouterr().err


def test_shards_that_nobody_goes_on_from_are_garbage_after_a_while(address, tmp_path):
    partitions.Shards(address, 2, tmp_path / "out").make(0, write(0))
    settings = Settings(root=tmp_path, checkpoints=str(tmp_path / "kept"))
    now = (tmp_path / "kept" / PLACE).stat().st_mtime
    assert list(unfinished.checkpoints(Place(settings, frozenset(), now + 10, grace=3600))) == []
    old = Place(settings, frozenset(), now + 7200, grace=3600)
    (found,) = unfinished.checkpoints(old)
    assert found.what == address
    unfinished.remove_checkpoint(old, found)
    assert list(unfinished.checkpoints(old)) == []
