"""Receiving a file: what arrives is bounded, goes on where it broke, and is believed only when its digest is right."""

import hashlib
import os

import pytest

from data.core.params import UserError
from flows.storage import transfer
from flows.storage.bucket import at
from flows.storage.protocol import check_key
from flows.storage.transfer import Broken, receive

DATA = os.urandom(100_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)


def test_a_source_without_an_end_is_stopped_at_the_announced_size(tmp_path):
    sent = []

    def endless(offset):
        while True:
            sent.append(1)
            yield bytes(30_000)

    with pytest.raises(UserError, match="bomb has more bytes than the 100000 announced; nothing was installed"):
        receive(endless, tmp_path / "file", 100_000, DIGEST, "bomb")
    assert len(sent) == 4
    assert (tmp_path / "file.partial").stat().st_size == 0
    assert not (tmp_path / "file").exists()


def test_a_source_that_breaks_again_and_again_is_asked_for_the_rest_only(tmp_path):
    asked = []

    def breaks(offset):
        asked.append(offset)
        yield DATA[offset : offset + 30_000]
        raise Broken("cut")

    receive(breaks, tmp_path / "file", len(DATA), DIGEST, "it")
    assert asked == [0, 30_000, 60_000, 90_000]
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_source_that_gives_nothing_any_more_is_given_up_and_what_came_is_kept(tmp_path):
    def dries_up(offset):
        yield DATA[offset : min(offset + 30_000, 50_000)]  # and then ends as if that were all

    with pytest.raises(UserError, match="it: the answer ended after 50000 of 100000 bytes, 5 times in a row"):
        receive(dries_up, tmp_path / "file", len(DATA), DIGEST, "it")
    assert (tmp_path / "file.partial").read_bytes() == DATA[:50_000]
    receive(lambda offset: iter([DATA[offset:]]), tmp_path / "file", len(DATA), DIGEST, "it")
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_partial_file_that_rotted_on_the_disk_is_fetched_anew(tmp_path):
    (tmp_path / "file.partial").write_bytes(b"rotten" + DATA[6:40_000])
    seen = []
    receive(lambda offset: iter([DATA[offset:]]), tmp_path / "file", len(DATA), DIGEST, "it", seen.append)
    assert (tmp_path / "file").read_bytes() == DATA
    assert sum(seen) == len(DATA)


@pytest.mark.parametrize(
    "key",
    ["", "/", "/etc/passwd", "a//b", "a/", "../a", "a/../b", "a/./b", "a\\b", "a\nb", "a\0b", "~/a", "ä", " a",
     ".hidden", "a/.tmp", "x" * 129, "/".join(["x" * 100] * 6), "C:/a", "a b", "a%2e"],
)  # fmt: skip
def test_a_key_that_is_not_plain_is_refused_in_one_short_line(key):
    with pytest.raises(UserError, match="is not a key of a bucket") as caught:
        check_key(key)
    assert "\n" not in str(caught.value)
    assert "\0" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_plain_keys_are_kept():
    for key in ("releases/images/000001.json", "bundles/depth-small/0a/model.safetensors", "a@v1.0.0", "_x=1+2"):
        assert check_key(key) == key


@pytest.mark.parametrize(
    "address", ["http://x/y", "s3://", "s3://A/b", "s3://ab", "s3://key:secret@bucket/x", "s3:///x", "s3://a_b/c"]
)
def test_an_address_that_is_no_bucket_is_refused_without_being_repeated(address):
    with pytest.raises(UserError, match="REMINT_PRODUCTION is neither") as caught:
        at(address)
    assert "secret" not in str(caught.value)


def test_a_link_in_a_folder_bucket_leads_nowhere(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.json").write_text("{}")
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket/bundles").symlink_to(tmp_path / "outside")
    bucket = at(str(tmp_path / "bucket"))
    with pytest.raises(UserError, match=r"bundles/secret.json leads out of the folder by a link"):
        bucket.read("bundles/secret.json")
    with pytest.raises(UserError, match="leads out"):
        bucket.create("bundles/new.json", b"")
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret.json"]
