"""`remint gc` on a real S3 server: uploads in parts that were broken off are found by their age and given up."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from data.core.params import UserError
from flows.garbage import collect, unfinished
from flows.garbage.place import Garbage, Place
from flows.settings import Settings

pytestmark = pytest.mark.integration
PART = b"x" * (5 << 20)


@dataclass(frozen=True)
class Server:
    """Uploads below the address of a test, begun and left as a process that is killed leaves them."""

    client: Any
    bucket: str
    prefix: str

    def begin(self, name: str) -> dict[str, str]:
        place = {"Bucket": self.bucket, "Key": f"{self.prefix}/{name}"}
        place["UploadId"] = self.client.create_multipart_upload(**place)["UploadId"]
        self.client.upload_part(**place, PartNumber=1, Body=PART)
        return place

    def open(self) -> list[str]:
        return [one["Key"] for one in self.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])]


@pytest.fixture
def server(s3_address: str) -> Server:
    bucket, _, prefix = s3_address.removeprefix("s3://").partition("/")
    return Server(boto3.session.Session().client("s3", region_name="us-east-1"), bucket, prefix)


@pytest.fixture
def place(tmp_path: Path, s3_address: str) -> Place:
    """Production, checkpoints and the remote in one bucket; checkpoints lie inside the remote's prefix."""
    places = {"production": f"{s3_address}/production", "checkpoints": f"{s3_address}/all/checkpoints"}
    return Place(Settings(root=tmp_path, remote=f"{s3_address}/all", **places), frozenset(["a run"]), 0.0, grace=-5.0)


def found(place: Place) -> list[Garbage]:
    with unfinished.UPLOADS.guard(place):
        return list(unfinished.uploads(place))


def test_uploads_that_were_broken_off_are_given_up_a_day_later_each_once(place, server, monkeypatch):
    names = ("production/bundles/a b", "all/checkpoints/proxy-0123/x", "all/files/md5/00/11")
    keys = [f"s3://{one['Bucket']}/{one['Key']} {one['UploadId']}" for one in map(server.begin, names)]
    other = server.begin("elsewhere/y")
    assert found(place) == []  # begun just now: another machine may be at it
    monkeypatch.setattr(unfinished, "LEAST_SECONDS", -5.0)  # the server says the second only
    assert sorted(item.what for item in found(place)) == sorted(keys)
    assert {item.bytes for item in found(place)} == {len(PART)}
    for item in found(place):
        collect.KINDS[item.kind].delete(place, item)
    assert found(place) == []
    assert server.open() == [other["Key"]]  # it is not ours


def test_what_an_abandoned_reproduction_kept_goes_as_one(place, server):
    proof, stage = f"reproduce-{'a' * 16}", f"tokenizer-{'b' * 16}"
    for where in (f"{proof}/{'c' * 16}/{stage}", f"{proof}/{'d' * 16}/{stage}", stage):
        key = f"{server.prefix}/all/checkpoints/{where}/{1:08d}-{'e' * 64}.safetensors"
        server.client.put_object(Bucket=server.bucket, Key=key, Body=b"xy")
    items = {item.what.rpartition("/")[2]: item for item in unfinished.checkpoints(place)}
    assert {name: item.bytes for name, item in items.items()} == {proof: 4, stage: 2}
    unfinished.remove_checkpoint(place, items[proof])
    assert [item.what.rpartition("/")[2] for item in unfinished.checkpoints(place)] == [stage]


def test_an_upload_that_ends_meanwhile_is_no_failure(place, server, monkeypatch):
    monkeypatch.setattr(unfinished, "LEAST_SECONDS", -5.0)  # the server says the second only
    begun = server.begin("production/z")
    (item,) = found(place)
    server.client.abort_multipart_upload(**begun)
    unfinished.give_up_upload(place, item)
    assert found(place) == []


def test_a_server_that_does_not_answer_is_named_with_its_variable(place, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot list uploads in s3://.*cannot be reached"):
        found(place)


def test_folders_have_no_uploads(tmp_path):
    assert found(Place(Settings(root=tmp_path), frozenset(), 0.0, 0.0)) == []
