"""Stage `images@NAME`: make shards and manifest of a set of pictures that was given.

    python -m data.pictures.make --name birds --out artifacts/images/birds

What the set is, `images.sets.NAME` of params.yaml says, which `remint data add` writes with the list of its files.
The bytes depend on the originals and these parameters, never on the form they were given in, the number of worker
processes (REMINT_WORKERS), interruptions or the parts it was made in (`data.core.partitions`). What cannot be used is
named with the reason, here and in quarantine.json; too much of it stops the stage.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data.core import checkpoint_store, entry, manifest, params, partitions, shards
from data.core.params import UserError
from data.pictures import cut, listing, places, sheet, splits, survey
from data.pictures.params import Set, named
from data.pictures.survey import SetAside, Survey
from data.pictures.workers import Cutters


def make(name: str, p: Set, out: Path) -> None:
    """Read the set, write it to `out`. The manifest comes last: with it, the folder is whole."""
    where = f"images.sets.{name}.source"
    listed = listing.read(listing.path(name))
    place, single = places.open(p.source, where)
    listing.compare(listed, place, single, name, where)
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(".given-*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=".given-", dir=out) as scratch:
        found = survey.of(listed, place, single, Path(scratch), where)
        ranges = [found.pictures[start : start + p.per_shard] for start in range(0, len(found.pictures), p.per_shard)]
        with partitions.opened(_address(name, p, found), len(ranges), out) as made:
            _fill(made, ranges, name, p)
            entries = _place(made.files(), name, out)
            finish(entries, found, name, p, out)


def _address(name: str, p: Set, found: Survey) -> str:
    """Where finished shards are kept: by all that their bytes come from."""
    values = {"size": p.size, "crop": p.crop, "seed": p.seed, "per_shard": p.per_shard, "max_pixels": p.max_pixels}
    originals = hashlib.sha256("".join(one.sha256 for one in found.pictures).encode()).hexdigest()
    return checkpoint_store.address(f"images@{name}", values, {"originals": originals}, ("data",))


def _fill(made: partitions.Shards, ranges: list[Any], name: str, p: Set) -> None:
    """Make the shards that are missing."""
    missing = sum(len(ranges[index]) for index in made.missing)
    with (
        closing(Cutters(p, entry.workers(), missing)) as cutters,
        tqdm(total=missing, desc=f"images@{name}", unit="picture", mininterval=2) as bar,
    ):
        for index in made.missing:
            made.make(index, partial(_write, cutters=cutters, pictures=ranges[index]))
            bar.update(len(ranges[index]))


def _write(file: Path, cutters: Cutters, pictures: Any) -> None:
    shards.write_one(file, cutters.samples(pictures))


def _place(files: list[Path], name: str, out: Path) -> list[shards.Entry]:
    """Put the finished shards into the output folder, in place of what lay there before."""
    for stale in (*out.glob("*.tar"), out / "manifest.parquet", out / "info.json"):
        stale.unlink(missing_ok=True)
    placed = [file.replace(out / shards.name("images", index)) for index, file in enumerate(files)]
    return [one for file in placed for one in shards.entries(file)]


def finish(entries: list[shards.Entry], found: Survey, name: str, p: Set, out: Path) -> None:
    """Write what is said of the shards: quarantine, facts, contact sheet and manifest."""
    records = {one.key: json.loads(shards.read(out, one)["json"]) for one in entries}
    aside = sorted([*found.aside, *_unusable(found, records, p)], key=lambda one: (one.name, one.reason))
    _write_json(out / "quarantine.json", [{"name": one.name, "reason": one.reason} for one in aside])
    for one in aside:
        sys.stderr.write(f"images@{name}: set aside: {one.name!r} {one.reason}\n")
    _check_share(aside, len(found.pictures) + len(found.aside), name, p)
    rows = _rows(entries, records, found, p)
    _write_json(out / "info.json", _info(rows, records, found, aside, p))
    sheet.draw(out, rows).save(out / sheet.FILE)
    manifest.write(rows, out)
    sys.stderr.write(f"images@{name}: {len(rows)} pictures, {len(aside)} set aside\n")


def _unusable(found: Survey, records: dict[str, Any], p: Set) -> list[SetAside]:
    """Why pictures have no sample. A shard that was kept does not say, so these few are tried once more."""
    lost = [one for one in found.pictures if cut.key(one.sha256) not in records]
    tried = [(one, cut.sample(p, one)) for one in lost]
    return [SetAside(one.name, why if isinstance(why, str) else "could not be read at first") for one, why in tried]


def _check_share(aside: list[SetAside], pictures: int, name: str, p: Set) -> None:
    bad = [one for one in aside if one.bad]
    if len(bad) > p.max_bad_share * pictures:
        shown = "; ".join(f"{one.name!r} {one.reason}" for one in bad[:3])
        raise UserError(
            f"{len(bad)} of {pictures} pictures cannot be used, more than images.sets.{name}.max_bad_share = "
            f"{p.max_bad_share}: {shown}{'; ...' if len(bad) > 3 else ''}. Remove them, or raise the share"
        )


def _rows(entries: list[shards.Entry], records: dict[str, Any], found: Survey, p: Set) -> list[dict[str, Any]]:
    """The manifest, in the order of the shards."""
    given = {cut.key(one.sha256): one for one in found.pictures}
    labels = [label for one in entries if isinstance(label := given[one.key].label, int)]  # the survey gave each one
    hashes = [records[one.key]["dhash"] for one in entries]
    sides = splits.of([one.key for one in entries], labels, hashes, p.held_out_share)
    return [
        {
            **manifest.place(one),
            **{column: records[one.key][column] for column in ("brightness", "contrast", "dhash")},
            "width": p.size,
            "height": p.size,
            "source": given[one.key].name,
            "licence": given[one.key].licence or p.licence,
            "label": label,
            "class_name": found.classes[label] if label >= 0 else "",
            "split": side,
        }
        for one, label, side in zip(entries, labels, sides, strict=True)
    ]


def _info(
    rows: list[dict[str, Any]], records: dict[str, Any], found: Survey, aside: list[SetAside], p: Set
) -> dict[str, Any]:
    """What holds for the set as a whole, and what its originals were."""
    counted = Counter(row["label"] for row in rows)
    shorter = [min(one["width"], one["height"]) for one in records.values()]
    return {
        "classes": list(found.classes),
        "counts": {name: counted[index] for index, name in enumerate(found.classes)},
        "without_class": counted[-1],
        "size": p.size,
        "count": len(rows),
        "splits": dict(sorted(Counter(row["split"] for row in rows).items())),
        "licences": dict(sorted(Counter(row["licence"] for row in rows).items())),
        "shorter_side": {"least": min(shorter), "median": int(np.median(shorter)), "most": max(shorter)},
        "enlarged": sum(side < p.size for side in shorter),
        "set_aside": len(aside),
        "bad": sum(one.bad for one in aside),
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    name = named(arguments.name)
    make(name, params.load(Set, f"images.sets.{name}"), arguments.out)


if __name__ == "__main__":
    entry.run(main, parts=True)
