"""Tar shards: many small samples in few files, with bytes that depend on nothing but the samples.

A shard is a plain USTAR archive whose members are `KEY.SUFFIX` (the WebDataset naming), all of one sample
next to each other, with zeroed times and owners. Readers seek by the offsets in the manifest, so any sample
can be read without the others and reading can resume anywhere.
"""

from __future__ import annotations

import hashlib
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
    """One sample's {suffix: bytes}. Raises UserError naming shard and sample when the checksum differs."""
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
    with tarfile.open(fileobj=BytesIO(packed + bytes(2 * BLOCK)), format=tarfile.USTAR_FORMAT) as archive:
        return {
            member.name.removeprefix(f"{entry.key}."): archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
        }


def _close(file) -> None:
    file.write(bytes(2 * BLOCK))  # the end of a tar archive: two empty blocks
    file.close()
