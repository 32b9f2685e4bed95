"""Tar shards: many small samples in few files, with bytes that depend on nothing but the samples.

A shard is a plain USTAR archive whose members are `KEY.SUFFIX` (the WebDataset naming), all of one sample
next to each other, with zeroed times and owners. Readers seek by the offsets in the manifest, so any sample
can be read without the others and reading can resume anywhere.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from data.params import UserError

BLOCK = 512  # a tar file is a sequence of 512-byte blocks


@dataclass(frozen=True)
class Entry:
    """Where a sample lies: `size` bytes of tar members from `offset` in `shard`, with their SHA-256."""

    key: str
    shard: str
    offset: int
    size: int
    sha256: str


def write(folder: Path, stem: str, samples: Iterable[tuple[str, dict[str, bytes]]], per_shard: int) -> list[Entry]:
    """Write `samples` (key, {suffix: bytes}) in the given order as `STEM-00000.tar`, ...; holds one at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[Entry] = []
    file, shard = None, ""
    try:
        for index, (key, members) in enumerate(samples):
            if index % per_shard == 0:
                if file:
                    _close(file)
                shard = f"{stem}-{index // per_shard:05d}.tar"
                file = (folder / shard).open("wb")
            assert file is not None
            packed = pack(key, members)
            entries.append(Entry(key, shard, file.tell(), len(packed), hashlib.sha256(packed).hexdigest()))
            file.write(packed)
    finally:
        if file:
            _close(file)
    return entries


def pack(key: str, members: dict[str, bytes]) -> bytes:
    """The tar members of one sample, without the archive's end marker."""
    blocks = bytearray()
    for suffix, content in members.items():
        info = tarfile.TarInfo(f"{key}.{suffix}")  # mtime, uid and gid are 0, mode is 0644
        info.size = len(content)
        blocks += info.tobuf(tarfile.USTAR_FORMAT) + content + bytes(-len(content) % BLOCK)
    return bytes(blocks)


def read(folder: Path, entry: Entry) -> dict[str, bytes]:
    """One sample's {suffix: bytes}. UserError names shard and sample when the checksum differs, or when the bytes are
    anything else than what `pack` writes: a link, a name of another sample's, a size that is not true."""
    if not re.fullmatch(r"[\w-][\w.-]*", entry.shard) or entry.offset < 0 or entry.size < 0:
        raise UserError(f"{folder}: the manifest puts sample {entry.key} outside the folder, at {entry.shard!r}")
    try:
        with (folder / entry.shard).open("rb") as file:
            file.seek(entry.offset)
            packed = file.read(entry.size)
    except FileNotFoundError:
        raise UserError(f"{folder / entry.shard} is missing; run the stage that writes it again") from None
    found = hashlib.sha256(packed).hexdigest()
    if found != entry.sha256:
        raise UserError(
            f"{folder / entry.shard}: sample {entry.key} is corrupt (SHA-256 {found[:12]}, the manifest says "
            f"{entry.sha256[:12]}); delete the folder and run the stage that writes it again"
        )
    try:
        return unpack(entry.key, packed)
    except ValueError as error:
        raise UserError(f"{folder / entry.shard}: sample {entry.key} is refused: {error}") from None


def unpack(key: str, packed: bytes) -> dict[str, bytes]:
    """The {suffix: bytes} of which `pack` makes exactly `packed`; ValueError says why there are none."""
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=BytesIO(packed + bytes(2 * BLOCK)), format=tarfile.USTAR_FORMAT) as archive:
            for member in archive:
                if member.type != tarfile.REGTYPE:
                    raise ValueError(f"{member.name!r} is a link, a folder or a device")
                if not member.name.startswith(f"{key}.") or "/" in member.name.removeprefix(key):
                    raise ValueError(f"{member.name!r} is not a name of its files")
                if member.size > len(packed):
                    raise ValueError(f"{member.name!r} announces {member.size} bytes, of {len(packed)} in all")
                members[member.name.removeprefix(f"{key}.")] = archive.extractfile(member).read()  # type: ignore[union-attr]
    except tarfile.TarError as error:
        raise ValueError(f"it is not a tar archive ({error})") from None
    if pack(key, members) != packed:
        raise ValueError("it holds more, or other, bytes than its files")
    return members


def _close(file) -> None:
    file.write(bytes(2 * BLOCK))  # the end of a tar archive: two empty blocks
    file.close()
