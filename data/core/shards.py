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
from itertools import chain, islice
from pathlib import Path
from typing import IO

from data.core.params import UserError

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
    left = iter(samples)
    for first in left:  # of a shard
        shard = name(stem, len(entries) // per_shard)
        entries += write_one(folder / shard, chain([first], islice(left, per_shard - 1)), shard)
    return entries


def name(stem: str, index: int) -> str:
    return f"{stem}-{index:05d}.tar"


def write_one(file: Path, samples: Iterable[tuple[str, dict[str, bytes]]], shard: str = "") -> list[Entry]:
    """Write one shard, which will have the name `shard` (that of the file if not given)."""
    with file.open("wb") as archive:
        return write_to(archive, samples, shard or file.name)


def write_to(archive: IO[bytes], samples: Iterable[tuple[str, dict[str, bytes]]], shard: str = "") -> list[Entry]:
    entries = []
    for key, members in samples:
        packed = pack(key, members)
        entries.append(Entry(key, shard, archive.tell(), len(packed), hashlib.sha256(packed).hexdigest()))
        archive.write(packed)
    archive.write(bytes(2 * BLOCK))  # the end of a tar archive: two empty blocks
    return entries


def entries(file: Path) -> list[Entry]:
    """Where the samples of a shard lie, from the shard itself."""
    with tarfile.open(file, "r:") as archive:
        starts = {member.name.partition(".")[0]: member.offset for member in reversed(archive.getmembers())}
    places = sorted(starts.items(), key=lambda place: place[1])
    ends = [start for _, start in places[1:]] + [file.stat().st_size - 2 * BLOCK]
    found = []
    with file.open("rb") as archive_bytes:
        for (key, start), end in zip(places, ends, strict=True):
            archive_bytes.seek(start)
            digest = hashlib.sha256(archive_bytes.read(end - start)).hexdigest()
            found.append(Entry(key, file.name, start, end - start, digest))
    return found


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
        raise UserError(
            f"{folder}: the manifest puts sample {entry.key} outside the folder, at {entry.shard!r}; make it again"
        )
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
        raise UserError(
            f"{folder / entry.shard}: sample {entry.key} is refused: {error}; run its stage again"
        ) from None


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
