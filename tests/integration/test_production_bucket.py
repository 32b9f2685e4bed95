"""The production store, a folder and a real S3 server under one set of rules."""

import hashlib
import multiprocessing
import os
import threading
import time
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.release import pointers
from flows.release.pointers import Member, Pointer
from flows.storage import bucket as buckets
from flows.storage import s3
from flows.storage.folder import FolderBucket
from flows.storage.protocol import Bucket, NotThere, Taken

pytestmark = pytest.mark.integration


@pytest.fixture
def bucket(production: str) -> Bucket:
    return buckets.at(production)


def written(path: Path, data: bytes) -> tuple[Path, str]:
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def pointer(number: int, previous: str = "", who: str = "ann", **changes: object) -> Pointer:
    member = Member("tokenizer", number, "a" * 64, f"tokenizer@v{number}.0.0", "b" * 64)
    values = {"run": "run", "commit": "c" * 40, "who": who, "why": "better", "at": "2026-11-21T10:00:00+00:00"}
    return Pointer("images", number, (member,), previous=previous, **(values | changes))  # type: ignore[arg-type]


def chain(bucket: Bucket, length: int) -> list[Pointer]:
    made: list[Pointer] = []
    for number in range(1, length + 1):
        made.append(pointer(number, pointers.digest(made[-1]) if made else ""))
        pointers.append(bucket, made[-1])
    return made


def test_what_is_created_is_read_and_listed_and_never_created_again(bucket):
    assert bucket.list("") == []
    bucket.create("releases/images/000001.json", b"first")
    with pytest.raises(Taken, match="releases/images/000001.json is there already"):
        bucket.create("releases/images/000001.json", b"second")
    with pytest.raises(Taken):
        bucket.create("releases/images/000001.json", b"first")
    assert bucket.read("releases/images/000001.json") == b"first"
    assert bucket.list("releases/") == bucket.list("") == ["releases/images/000001.json"]
    assert bucket.list("releases/depth/") == bucket.list("other/") == []
    assert bucket.list("releases/images/0000") == ["releases/images/000001.json"]


def test_what_is_absent_is_named(bucket, tmp_path):
    with pytest.raises(NotThere, match="holds no bundles/none.json"):
        bucket.read("bundles/none.json")
    with pytest.raises(NotThere):
        bucket.download("bundles/none.json", tmp_path / "none", 3, "0" * 64)
    bucket.delete("bundles/none.json")


def test_a_small_object_is_not_read_beyond_its_limit(bucket):
    bucket.create("a/large.json", bytes(1001))
    assert len(bucket.read("a/large.json", 1001)) == 1001
    with pytest.raises(UserError, match="more than 1000 bytes"):
        bucket.read("a/large.json", 1000)


def test_a_file_comes_back_as_it_was_and_uploading_it_again_does_nothing(bucket, tmp_path):
    path, digest = written(tmp_path / "model.safetensors", os.urandom(3_000_000))
    for _ in range(2):
        bucket.upload("bundles/m/model.safetensors", path, digest)
    assert bucket.list("bundles/") == ["bundles/m/model.safetensors"]
    seen: list[int] = []
    bucket.download("bundles/m/model.safetensors", tmp_path / "new/back", 3_000_000, digest, seen.append)
    assert (tmp_path / "new/back").read_bytes() == path.read_bytes()
    assert sum(seen) == 3_000_000
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["back"]
    bucket.delete("bundles/m/model.safetensors")
    assert bucket.list("") == []


def test_an_empty_file_is_a_file(bucket, tmp_path):
    path, digest = written(tmp_path / "empty", b"")
    bucket.upload("bundles/empty", path, digest)
    bucket.download("bundles/empty", tmp_path / "back", 0, digest)
    assert (tmp_path / "back").read_bytes() == b""


def test_other_bytes_under_a_key_are_refused_with_both_digests(bucket, tmp_path):
    (one, first), (other, second) = written(tmp_path / "one", b"one"), written(tmp_path / "other", b"two")
    bucket.upload("bundles/m/config.json", one)
    with pytest.raises(UserError, match=f"{first}.*{second}"):
        bucket.upload("bundles/m/config.json", other)
    assert bucket.read("bundles/m/config.json") == b"one"
    with pytest.raises(UserError, match=f"other was changed: expected sha256 {first}, found {second}"):
        bucket.upload("bundles/m/new.json", other, first)
    assert bucket.list("") == ["bundles/m/config.json"]


def test_an_object_that_another_program_put_there_is_known_by_its_bytes(bucket, tmp_path):
    bucket.create("bundles/m/config.json", b"same")
    if isinstance(bucket, s3.S3Bucket):  # as `aws s3 cp` would: without our metadata
        bucket.delete("bundles/m/config.json")
        bucket._client.put_object(Bucket=bucket.bucket, Key=f"{bucket.prefix}bundles/m/config.json", Body=b"same")
    bucket.upload("bundles/m/config.json", written(tmp_path / "same", b"same")[0])
    with pytest.raises(UserError, match="holds other bytes"):
        bucket.upload("bundles/m/config.json", written(tmp_path / "size", b"some")[0])


def test_a_broken_download_goes_on_where_it_stopped(bucket, tmp_path):
    data = os.urandom(200_000)
    path, digest = written(tmp_path / "file", data)
    bucket.upload("bundles/file", path)
    (tmp_path / "back.partial").write_bytes(data[:150_000])
    seen: list[int] = []
    bucket.download("bundles/file", tmp_path / "back", len(data), digest, seen.append)
    assert seen[0] == 150_000
    assert sum(seen) == 200_000
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.parametrize("left", [b"x" * 150_000, b"x" * 200_000, b"x" * 300_000])
def test_a_partial_file_of_something_else_is_thrown_away(bucket, tmp_path, left):
    data = os.urandom(200_000)
    path, digest = written(tmp_path / "file", data)
    bucket.upload("bundles/file", path)
    (tmp_path / "back.partial").write_bytes(left)
    bucket.download("bundles/file", tmp_path / "back", len(data), digest)
    assert (tmp_path / "back").read_bytes() == data


def test_what_is_not_as_announced_is_refused_and_leaves_nothing(bucket, tmp_path):
    path, digest = written(tmp_path / "file", os.urandom(5000))
    bucket.upload("bundles/file", path)
    for size in (4999, 5001, 0):
        with pytest.raises(UserError, match=f"bundles/file has 5000 bytes, {size} were announced|wrong content"):
            bucket.download("bundles/file", tmp_path / "back", size, digest)
        (tmp_path / "back.partial").unlink(missing_ok=True)
    with pytest.raises(UserError, match=f"bundles/file has the wrong content: expected sha256 0{{64}}, found {digest}"):
        bucket.download("bundles/file", tmp_path / "back", 5000, "0" * 64)
    assert [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("back")] == []


def test_a_list_is_whole_however_many_answers_it_takes(bucket, monkeypatch):
    keys = [f"releases/images/{number:06d}.json" for number in range(1, 11)]
    for key in reversed(keys):
        bucket.create(key, b"{}")
    if isinstance(bucket, s3.S3Bucket):  # which otherwise takes 1,000 keys to an answer
        monkeypatch.setattr(bucket._client, "list_objects_v2", partial(bucket._client.list_objects_v2, MaxKeys=3))
    assert bucket.list("releases/images/") == keys


def test_a_folder_bears_that_others_list_create_and_delete_at_once(tmp_path):
    """Every folder of these keys is removed with its last key and made again with the next."""
    bucket = FolderBucket(tmp_path / "bucket")
    until, errors = time.monotonic() + 1.5, []

    def work(number):
        try:
            while time.monotonic() < until:
                key = f"stages/a/b/{number}/c/attempt.json"
                bucket.create(key, b"here")
                assert key in bucket.list("stages/a/")
                bucket.replace(key, b"there")
                bucket.delete(key)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert bucket.list("stages/") == []


def test_a_large_file_is_uploaded_in_parts(s3_address, tmp_path):
    bucket = s3.S3Bucket(s3_address.split("/")[2], "parts", part_bytes=5 << 20)
    data = os.urandom((11 << 20) + 7)
    path, digest = written(tmp_path / "file", data)
    bucket.upload("bundles/file", path)
    bucket.upload("bundles/file", path)
    bucket.download("bundles/file", tmp_path / "back", len(data), digest)
    assert (tmp_path / "back").read_bytes() == data
    with pytest.raises(UserError, match="holds other bytes"):
        bucket.upload("bundles/file", written(tmp_path / "other", data + b"1")[0])
    assert "Uploads" not in bucket._client.list_multipart_uploads(Bucket=bucket.bucket)


def test_the_log_is_a_chain_that_is_read_in_order(bucket):
    assert pointers.newest(bucket, "images") is None
    assert pointers.log(bucket, "images") == []
    made = chain(bucket, 12)
    assert pointers.newest(bucket, "images") == made[-1]
    assert pointers.log(bucket, "images") == made
    assert pointers.families(bucket) == ["images"]
    assert pointers.read(bucket, "images", 3) == made[2]
    with pytest.raises(UserError, match="has no release 13 of images; the newest is images@12"):
        pointers.read(bucket, "images", 13)
    with pytest.raises(UserError, match="has no release 1 of depth; there is none yet"):
        pointers.read(bucket, "depth", 1)


def test_a_changed_past_shows(bucket):
    made = chain(bucket, 3)
    bucket.delete("releases/images/000002.json")
    for ask in (pointers.log, pointers.newest):
        with pytest.raises(UserError, match="release 2 of images is missing"):
            ask(bucket, "images")
    other = pointer(2, pointers.digest(made[0]), who="mallory")
    bucket.create("releases/images/000002.json", pointers.text(other).encode())
    with pytest.raises(UserError, match=f"release 3 of images follows.*{pointers.digest(made[1])}"):
        pointers.log(bucket, "images")


def race(address: str, made: Pointer, start: Barrier, results: Queue) -> None:
    bucket = buckets.at(address)
    bucket.list("releases/")  # connected
    start.wait()
    try:
        pointers.append(bucket, made)
        results.put("won")
    except Taken:
        results.put("taken")


def test_of_eight_processes_that_append_the_same_release_one_wins(production):
    first = chain(buckets.at(production), 1)[0]
    made = pointer(2, pointers.digest(first))  # the same words from all: still only one wins
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(8), context.Queue()
    racers = [context.Process(target=race, args=(production, made, start, results)) for _ in range(8)]
    for racer in racers:
        racer.start()
    assert sorted(results.get(timeout=60) for _ in racers) == ["taken"] * 7 + ["won"]
    for racer in racers:
        racer.join()
    assert pointers.log(buckets.at(production), "images") == [first, made]
