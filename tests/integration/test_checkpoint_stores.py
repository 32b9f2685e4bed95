"""Checkpoints in a folder and in a bucket of a real S3 server, under one set of rules."""

import pytest
import torch

from data.core import partitions, stores
from data.core.checkpoint_store import discard, unfinished
from models.core.checkpoint import files
from models.core.checkpoint.checkpoints import Checkpoints

pytestmark = pytest.mark.integration

PLACE = f"generator@maskgit-{'0' * 16}"


@pytest.fixture
def store(production):
    """An empty place for checkpoints: a folder, then a bucket."""
    return production


def save(checkpoints, step, numbers=10):
    state = {"step": step, "weights": torch.full((numbers,), float(step))}
    checkpoints.save(step, lambda file: files.write(file, state))


def test_the_newest_state_is_found_by_another_process_and_forgotten_at_the_end(store):
    writer = Checkpoints(f"{store}/{PLACE}")
    for step in (100, 200, 300):
        save(writer, step, numbers=3_000_000)  # 12 MB: sent in parts
    assert [s.name[:8] for s in writer.store.list()] == ["00000200", "00000300"]
    step, state = Checkpoints(f"{store}/{PLACE}").newest()
    assert (step, state["step"]) == (300, 300)
    assert torch.equal(state["weights"], torch.full((3_000_000,), 300.0))
    writer.forget()
    assert writer.store.list() == []
    assert writer.newest() is None


def test_a_damaged_checkpoint_is_named_removed_and_passed_over(store, tmp_path, capsys):
    checkpoints = Checkpoints(f"{store}/{PLACE}")
    save(checkpoints, 7)
    whole = checkpoints.store.list()[0].name
    with checkpoints.store.scratch() as scratch:
        half = scratch / ".half"
        half.write_bytes(checkpoints.store.get(whole, tmp_path).read_bytes()[:-5])
        checkpoints.store.put(half, f"00000009-{'f' * 64}.safetensors")
    assert checkpoints.newest()[0] == 7
    assert (
        f"00000009-{'f' * 64}.safetensors is damaged (expected SHA-256 ffffffffffff, found" in capsys.readouterr().err
    )
    assert [s.name for s in checkpoints.store.list()] == [whole]


def test_what_trainings_left_behind_is_listed_and_can_be_discarded(store):
    assert unfinished(store) == []
    for stage in ("proxy", "tokenizer"):
        save(Checkpoints(f"{store}/{stage}-{'1' * 16}"), 40)
    assert [(one.stage, one.number) for one in unfinished(store)] == [("proxy", 40), ("tokenizer", 40)]
    assert unfinished(store, idle=3600) == []
    discard(store, f"proxy-{'1' * 16}")
    assert [one.stage for one in unfinished(store)] == ["tokenizer"]


def test_shards_made_in_parts_are_found_verified_and_forgotten(store, tmp_path, monkeypatch, capsys):
    def make(part):
        monkeypatch.setenv("REMINT_PART", part)
        made = partitions.Shards(f"{store}/{PLACE}", 4, tmp_path / f"out{part[:1]}")
        for index in made.missing:
            made.make(index, lambda file, index=index: file.write_bytes(bytes([index]) * 1000))
        return made

    make("2/2"), make("1/3")
    (hurt,) = (s.name for s in stores.open(f"{store}/{PLACE}").list() if s.name.startswith("00000003"))
    with stores.open(f"{store}/{PLACE}").scratch() as scratch:
        (scratch / "file").write_bytes(b"other")
        stores.open(f"{store}/{PLACE}").put(scratch / "file", hurt)
    assert [(one.stage, one.number) for one in unfinished(store)] == [("generator@maskgit", 3)]
    whole = make("")
    said = capsys.readouterr().err
    assert f"{hurt} is damaged" in said
    assert "going on with 2 of 4 shards done" in said  # 0 and 1; 3 is damaged
    assert [file.read_bytes()[:1] for file in whole.files()] == [bytes([index]) for index in range(4)]
    whole.forget()
    assert unfinished(store) == []


@pytest.mark.parametrize("production", ["s3"], indirect=True)
def test_parts_of_an_upload_that_was_cut_off_go_too(store):
    made = stores.open(f"{store}/{PLACE}")
    cut = {"Bucket": made.bucket, "Prefix": made.prefix}
    made.client.create_multipart_upload(Bucket=made.bucket, Key=f"{made.prefix}half")
    assert len(made.client.list_multipart_uploads(**cut)["Uploads"]) == 1
    made.clear()
    assert "Uploads" not in made.client.list_multipart_uploads(**cut)


@pytest.mark.parametrize("production", ["s3"], indirect=True)
def test_a_bucket_that_is_not_there_costs_one_line(store, capsys):
    checkpoints = Checkpoints("s3://nothing-here/tiny")
    save(checkpoints, 1)
    save(checkpoints, 2)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "NoSuchBucket" in said
