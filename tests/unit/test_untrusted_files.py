"""What comes from a store is not believed: shards and weights that are not what their stage writes are refused."""

import hashlib
import io
import pickle
import tarfile

import pytest
import torch

from data.core import shards
from data.core.params import UserError
from models.core import saved


def stored(folder, packed, shard="test.tar"):
    """The bytes as a shard, with a manifest entry whose digest is right."""
    folder.mkdir(exist_ok=True)
    (folder / "test.tar").write_bytes(packed + bytes(1024))
    return shards.Entry("0001", shard, 0, len(packed), hashlib.sha256(packed).hexdigest())


def member(name, content=b"", announced=None, **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content) if announced is None else announced
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % 512)


def sparse(name, size):
    """An empty file that says it will be `size` bytes when it is read."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = f"{size:011o}".encode() + b"\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}".encode() + b"\0 "
    return bytes(header)


GOOD = member("0001.rgb.png", b"pixels")


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (GOOD + member("0001.b", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'0001.b' is a link"),
        (GOOD + member("0001.b", type=tarfile.LNKTYPE, linkname="0001.rgb.png"), "'0001.b' is a link"),
        (member("0001.d", type=tarfile.DIRTYPE), "'0001.d' is a link, a folder"),
        (member("0001.c", type=tarfile.CHRTYPE), "'0001.c' is a link, a folder or a device"),
        (sparse("0001.s", 1 << 31), "'0001.s' is a link, a folder or a device"),
        (member("/etc/0001.rgb.png", b"x"), "'/etc/0001.rgb.png' is not a name"),
        (member("../0001.rgb.png", b"x"), "'../0001.rgb.png' is not a name"),
        (member("0001.x/../../y", b"x"), "'0001.x/../../y' is not a name"),
        (member("0002.rgb.png", b"x"), "'0002.rgb.png' is not a name"),
        (member("0001.rgb.png", b"x", announced=1 << 32), f"announces {1 << 32} bytes, of 1024 in all"),
        (member("0001.rgb.png", b"x" * 600, announced=1100), "holds more, or other, bytes"),
        (member("0001.rgb.png", b"x" * 600, announced=10), "holds more, or other, bytes"),
        (GOOD + b"more" * 128, "holds more, or other, bytes"),
        (GOOD + GOOD, "holds more, or other, bytes"),
        (member("0001.rgb.png", b"pixels", mtime=5), "holds more, or other, bytes"),
        (b"no archive at all" * 40, "not a tar archive"),
    ],
)
def test_a_sample_that_is_not_what_a_stage_writes_is_refused(tmp_path, packed, why):
    with pytest.raises(UserError) as raised:
        shards.read(tmp_path, stored(tmp_path, packed))
    assert f"{tmp_path}/test.tar: sample 0001 is refused: " in str(raised.value)
    assert why in str(raised.value)


def test_what_a_stage_writes_is_read(tmp_path):
    assert shards.read(tmp_path, stored(tmp_path, GOOD)) == {"rgb.png": b"pixels"}


@pytest.mark.parametrize("shard", ["../test.tar", "/etc/passwd", "..", "", "inner/test.tar", ".hidden"])
def test_a_manifest_cannot_point_out_of_its_folder(tmp_path, shard):
    entry = stored(tmp_path / "inner", GOOD, shard)
    (tmp_path / "test.tar").write_bytes(GOOD)
    with pytest.raises(UserError, match="outside the folder"):
        shards.read(tmp_path / "inner", entry)


@pytest.mark.parametrize("damage", ["cut", "pickle", "header"])
def test_weights_that_are_damaged_or_no_safetensors_are_named(tmp_path, damage):
    saved.write(tmp_path, {"weight": torch.zeros(100)}, {})
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    trap = io.BytesIO()
    pickle.dump(print, trap)
    file.write_bytes({"cut": whole[:-40], "pickle": trap.getvalue(), "header": b"\xff" * 8 + whole[8:]}[damage])
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        saved.read(tmp_path)
