"""All pictures of a set before any is decoded: each once by the digest of its original, with its class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data.core.params import UserError
from data.pictures import classes, folders, parquets, tables, tars
from data.pictures.given import Given, Spool
from data.pictures.listing import Listing
from data.pictures.places import Place


@dataclass(frozen=True)
class SetAside:
    """A picture that is not taken, and why; `bad` if that is its own fault (as of a copy it is not)."""

    name: str
    reason: str
    bad: bool = True


@dataclass(frozen=True)
class Survey:
    """What a set holds. `pictures` are sorted by digest, so that the same ones give the same shards in any form."""

    pictures: tuple[Given, ...]
    classes: tuple[str, ...]
    aside: tuple[SetAside, ...]


def of(listed: Listing, place: Place, single: str, scratch: Path, where: str) -> Survey:
    """Read a set; pictures that lie in something else, or not on this machine, are put into `scratch`."""
    names = _names(listed, place, scratch)
    every = list(_read(listed, place, single, scratch))
    unread = [one for one in every if one.reason]
    known = classes.of((one.label for one in every), names, where)
    right, wrong = classes.labelled((one for one in every if not one.reason), known)
    kept, copies = _once(right)
    aside = [SetAside(one.name, one.reason) for one in (*unread, *wrong)] + copies
    if not every:
        raise UserError(f"{where}: {place.address} holds no pictures; put JPEG, PNG, WebP or TIFF pictures there")
    return Survey(tuple(kept), known.names, tuple(sorted(aside, key=lambda one: (one.name, one.reason))))


def _names(listed: Listing, place: Place, scratch: Path) -> tuple[str, ...] | None:
    if listed.kind == "folders":
        return folders.classes(listed.files)
    if listed.kind == "parquet":
        return parquets.classes(listed.files, place, scratch)
    return tars.classes(listed.files, place, scratch)


def _read(listed: Listing, place: Place, single: str, scratch: Path) -> Iterator[Given]:
    spool = Spool(scratch)
    if listed.kind == "csv":
        return tables.read(listed.files, place, spool, scratch, single)
    reader = {"folders": folders.read, "tars": tars.read, "parquet": parquets.read}[listed.kind]
    return reader(listed.files, place, spool, scratch)


def _once(pictures: list[Given]) -> tuple[list[Given], list[SetAside]]:
    """Each picture once, sorted by digest; a copy of another class is a mistake of one of the two."""
    kept: dict[str, Given] = {}
    copies = []
    for one in sorted(pictures, key=lambda one: (one.sha256, one.label, one.name)):
        first = kept.setdefault(one.sha256, one)
        if first is not one:
            bad = first.label != one.label
            why = f"is the same picture as {first.name}" + (f", of another class ({one.label}, {first.label})" * bad)
            copies.append(SetAside(one.name, why, bad))
    return list(kept.values()), copies
