"""What S3 and the network can do wrong, done to a real server through a proxy that misbehaves on demand."""

import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data.core.params import UserError
from flows.release.pull import holds, pull
from flows.storage import s3, transfer
from flows.storage.protocol import Taken
from tests.proxy import Proxy

pytestmark = pytest.mark.integration
SECRETS = ("testsecret", "hunter2")


@pytest.fixture
def proxy(s3_server: dict[str, str]) -> Iterator[Proxy]:
    made = Proxy(int(s3_server["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]))
    yield made
    made.listener.close()


@pytest.fixture
def bucket(s3_address: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> s3.S3Bucket:
    """A bucket behind the proxy, without patience."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setattr(transfer.time, "sleep", lambda seconds: None)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0)
    return s3.S3Bucket(s3_address.split("/")[2], "prefix", timeout=0.5)


def put(bucket: s3.S3Bucket, path: Path, data: bytes) -> str:
    path.write_bytes(data)
    bucket.upload("bundles/file", path)
    return hashlib.sha256(data).hexdigest()


def flip(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]


def reconnect(bucket: s3.S3Bucket) -> None:
    """New connections, which the fault counts from their beginning."""
    bucket._client.close()
    vars(bucket).pop("_client")


def test_a_download_that_is_cut_off_goes_on_until_it_is_whole(bucket, proxy, tmp_path):
    data = os.urandom(2_000_000)
    digest = put(bucket, tmp_path / "file", data)
    reconnect(bucket)
    before = proxy.connections
    proxy.answer = lambda position, part: part if position < 500_000 else None
    seen: list[int] = []
    bucket.download("bundles/file", tmp_path / "back", len(data), digest, seen.append)
    assert (tmp_path / "back").read_bytes() == data
    assert sum(seen) == len(data)
    assert proxy.connections - before >= 4


def test_a_download_that_never_gets_on_is_given_up_and_kept(bucket, proxy, tmp_path):
    data = os.urandom(1_000_000)
    digest = put(bucket, tmp_path / "file", data)
    reconnect(bucket)
    proxy.answer = lambda position, part: part[:2000] if position == 0 else None
    with pytest.raises(UserError, match="bundles/file: the answer broke off .* 5 times in a row; run again"):
        bucket.download("bundles/file", tmp_path / "back", len(data), digest)
    assert (tmp_path / "back.partial").exists()


def test_a_server_that_changes_a_byte_is_found_out_and_nothing_is_installed(bucket, proxy, tmp_path):
    data = os.urandom(300_000)
    digest = put(bucket, tmp_path / "file", data)
    reconnect(bucket)
    proxy.answer = lambda position, part: part if position == 0 else flip(part, 0)
    with pytest.raises(
        UserError, match=f"bundles/file has the wrong content: expected sha256 {digest}, found [0-9a-f]"
    ):
        bucket.download("bundles/file", tmp_path / "back", len(data), digest)
    assert not list(tmp_path.glob("back*"))


def test_a_byte_changed_on_the_way_up_is_refused_by_the_server(bucket, proxy, tmp_path):
    proxy.request = lambda part: part.replace(b"right", b"wrong")
    with pytest.raises(UserError, match="cannot upload bundles/file in s3://.*(BadDigest|XAmzContentSHA256Mismatch)"):
        put(bucket, tmp_path / "file", b"right")
    with pytest.raises(UserError, match="cannot create bundles/small in s3://"):
        bucket.create("bundles/small", b"right")
    proxy.request = lambda part: part
    assert bucket.list("") == []


def test_an_answer_lost_on_the_way_is_not_taken_for_a_lost_race(bucket, proxy):
    bucket.list("")
    lost = []

    def lose(position: int, part: bytes) -> bytes | None:
        if not lost and b"HTTP/1.1 200" in part:
            lost.append(part)
            return None
        return part

    proxy.answer = lose
    bucket.create("releases/images/000001.json", b"ours")  # written, answer lost, repeated, found taken: by itself
    assert lost
    assert bucket.read("releases/images/000001.json") == b"ours"
    lost.clear()
    with pytest.raises(Taken):
        bucket.create("releases/images/000001.json", b"ours")


def test_a_server_that_overwrites_in_spite_of_the_condition_is_not_trusted(bucket, monkeypatch):
    original = bucket._client.put_object
    monkeypatch.setattr(bucket._client, "put_object", lambda IfNoneMatch, **request: original(**request))
    with pytest.raises(UserError, match="overwrites what is there: its server ignores `If-None-Match"):
        bucket.create("bundles/m/manifest.json", b"{}")


def test_a_server_that_is_silent_is_not_waited_for_long(bucket, proxy):
    proxy.canned = b""
    with pytest.raises(UserError, match=f"cannot list anything in s3://.*{proxy.url} did not answer in time"):
        bucket.list("")
    assert proxy.connections == s3.TRIES
    with pytest.raises(UserError, match="cannot create a/b in s3://.*in time"):
        bucket.create("a/b", b"")


def test_an_overloaded_server_is_asked_again(bucket, proxy):
    body = b"<Error><Code>SlowDown</Code></Error>"
    proxy.canned = b"HTTP/1.1 503 Slow Down\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
    with pytest.raises(UserError, match="cannot read a/b in s3://.* answers SlowDown; try again later"):
        bucket.read("a/b")
    assert proxy.connections == s3.TRIES


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html>hotel</", b"220 mail.example.org ESMTP\r\n", b"\0\1\2\3"],
)
def test_something_else_than_s3_is_said_to_be_that(bucket, proxy, answer):
    proxy.canned = answer
    with pytest.raises(
        UserError, match="cannot list anything in s3://.*(does not speak S3|breaks off|cannot be reached|answers 500)"
    ):
        bucket.list("")


def test_nobody_listening_is_said_with_the_next_step(bucket, proxy, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://ann:hunter2@127.0.0.1:{port}")
    with pytest.raises(
        UserError, match=rf"http://127.0.0.1:{port} cannot be reached .*check AWS_ENDPOINT_URL"
    ) as caught:
        bucket.list("")
    assert not any(secret in str(caught.value) for secret in SECRETS)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("AWS_SECRET_ACCESS_KEY", "hunter2", r"refuses \(SignatureDoesNotMatch\); check AWS_ACCESS_KEY_ID"),
        ("AWS_ACCESS_KEY_ID", "nobody", r"refuses \(InvalidAccessKeyId\); check AWS_ACCESS_KEY_ID"),
        ("AWS_ENDPOINT_URL", "not an address", "AWS_ENDPOINT_URL or AWS_REGION is not valid"),
    ],
)
def test_a_refusal_names_what_to_check_and_no_secret(bucket, monkeypatch, tmp_path, variable, value, words):
    monkeypatch.setenv(variable, value)
    (tmp_path / "file").write_text("x")
    attempts: list[Callable[[], object]] = [
        lambda: bucket.read("a/b"),
        lambda: bucket.list("a/"),
        lambda: bucket.create("a/b", b""),
    ]
    for attempt in attempts:
        with pytest.raises(UserError, match=words) as caught:
            attempt()
        assert bucket.name in str(caught.value)
        assert not any(secret in str(caught.value) for secret in SECRETS)
    with pytest.raises(UserError, match=r"refuses \(403\)|is not valid"):  # a HEAD has no body to give reasons in
        bucket.upload("a/b", tmp_path / "file")


def test_missing_credentials_and_an_absent_bucket_are_named(bucket, monkeypatch):
    gone = s3.S3Bucket("not-there-at-all", timeout=2)
    for attempt in (lambda: gone.list(""), lambda: gone.read("a"), lambda: gone.create("a", b"")):
        with pytest.raises(UserError, match="has no bucket not-there-at-all; create it, or correct REMINT_PRODUCTION"):
            attempt()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(UserError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        bucket.list("")


def test_a_pull_over_a_bad_line_ends_with_the_whole_release(bucket, proxy, publish, tmp_path):
    release = publish(bucket, "images", {"tokenizer": 1, "maskgit": 2}, size=100_000)
    reconnect(bucket)
    proxy.answer = lambda position, part: part if position < 300_000 else None  # each model has 800,000 bytes
    assert pull(bucket, "images", None, tmp_path / "got").new
    assert holds(tmp_path / "got", release)
