"""Parquet files as Hugging Face has them: `image` (bytes and path) with `label`, its names in the schema's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.core.params import UserError
from data.pictures.given import Given, Spool, label, printable
from data.pictures.places import File, Place
from data.pictures.tars import CLASSES, LICENCES

ROWS = 64  # read at once


def classes(files: Sequence[File], place: Place, scratch: Path) -> tuple[str, ...] | None:
    """The names of ClassLabel, None where no file has any; UserError where two files have other names."""
    known: dict[tuple[str, ...], str] = {}
    for file in _parquets(files):
        with place.opened(file, scratch) as path:
            metadata = _file(path, place, file).schema_arrow.metadata or {}
        if names := _names(metadata.get(b"huggingface", b"{}")):
            known.setdefault(names, file.name)
    if len(known) > 1:
        first, other = list(known.values())[:2]
        raise UserError(f"{place.address}: {other!r} has other class names than {first!r}; give them as two sets")
    return next(iter(known), None)


def read(files: Sequence[File], place: Place, spool: Spool, scratch: Path) -> Iterator[Given]:
    """Every picture of the files, in their order."""
    for file in _parquets(files):
        with place.opened(file, scratch) as path:
            opened = _file(path, place, file)
            columns = _columns(opened.schema_arrow, f"{place.address}/{file.name}")
            row = 0
            for batch in opened.iter_batches(ROWS, columns=columns):
                for values in batch.to_pylist():
                    yield _given(values, f"{printable(file.name)}/{row:08d}", spool)
                    row += 1


def _given(values: dict[str, Any], name: str, spool: Spool) -> Given:
    image = values["image"]
    data = image.get("bytes") if isinstance(image, dict) else image
    if not data:
        return Given(name, reason="has no bytes, only an address; download the pictures into the parquet")
    sha256, path = spool.keep(data)
    said = values.get("label")
    licence = next((str(values[one]) for one in LICENCES if values.get(one)), "")
    return Given(name, path, sha256, None if said is None else label(str(said)), licence)


def _columns(schema: pa.Schema, name: str) -> list[str]:
    """The columns to read; UserError where there are no pictures."""
    if "image" not in schema.names:
        raise UserError(f"{name} has no column 'image', only {', '.join(schema.names)}; rename the one with pictures")
    kind = schema.field("image").type
    inner = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)} if pa.types.is_struct(kind) else {}
    stored = inner.get("bytes", kind)
    if not (pa.types.is_binary(stored) or pa.types.is_large_binary(stored)):
        raise UserError(f"{name}: image must hold bytes, not {kind} (addresses?); download the pictures")
    return [one for one in ("image", "label", *LICENCES) if one in schema.names]


def _file(path: Path, place: Place, file: File) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"{place.address}/{file.name} is no whole parquet file ({str(error).splitlines()[0]}); put it there again"
        ) from None


def _names(text: bytes) -> tuple[str, ...]:
    try:
        found = json.loads(text)["info"]["features"]["label"]["names"]
        return tuple(str(name) for name in found)
    except (ValueError, LookupError, TypeError):
        return ()


def _parquets(files: Sequence[File]) -> list[File]:
    return [file for file in files if file.name != CLASSES]
