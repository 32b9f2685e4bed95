"""The baseline of production: its photographs' statistics, its depth student, and how that sees held-out ones."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.core import manifest
from data.core.params import UserError
from data.core.samples import Samples
from flows import repository, state
from flows.arrivals import measure
from flows.pipeline import families
from flows.pipeline.lock import lock_in
from flows.pipeline.store import Store
from flows.release import bundle, pointers
from flows.release.pointers import Member, Pointer
from flows.settings import Settings
from flows.storage import bucket
from flows.storage.protocol import Bucket

FAMILY, STUDENTS = "depth", Path("artifacts/depth-student")
PHOTOS = "artifacts/photos"
LOOKED_AT = 4  # tiles of a photograph that a student is asked about, coarse ones first


@dataclass(frozen=True)
class Baseline:
    """What new photographs are held against."""

    statistics: Mapping[str, list[int]]  # of the tiles that production was made from: column -> histogram
    confusion: Sequence[float]  # of the student in production, by held-out photographs


class Production:
    """The newest release of the depth models."""

    def __init__(self, settings: Settings, store: Bucket, pointer: Pointer, student: Member) -> None:
        self.settings, self.store, self.pointer, self.student = settings, store, pointer, student
        self.title = f"{FAMILY} #{pointer.number}"

    @cached_property
    def net(self) -> Any:
        """The student, ready to predict."""
        import models

        with tempfile.TemporaryDirectory(prefix="remint-student-") as folder:
            into = Path(folder)
            bundle.fetch(
                self.store, self.student.model, self.student.bundle, into, only=("model.safetensors", "config.json")
            )
            return models.load(into)

    def look(self, tiles: np.ndarray) -> list[float]:
        """How much the student disagrees with itself about each tile."""
        return measure.disagreement(self.net, tiles)

    def baseline(self) -> Baseline:
        """Of the photographs that production was made from; UserError if their bytes are nowhere to be had.

        Worked out once per release and kept in the home.
        """
        oid = _photos(repository.file_at(self.settings.root, self.pointer.commit, "dvc.lock") or "")
        kept = self.settings.home / "watch" / f"held-out-{self.student.bundle[:16]}-{oid[:16]}.json"
        with contextlib.suppress(UserError):  # a damaged one is worked out again
            if known := state.read(kept, lambda values: Baseline(**values), ""):
                return known
        with contextlib.closing(Store(self.settings.root)) as store:
            files = store.cache.brought(oid)
        if not files:
            raise UserError(
                f"the photographs of {self.title} are neither in DVC's cache nor in its remote; dvc fetch them"
            )
        made = self._worked_out(files)
        state.write(kept, asdict(made))
        return made

    def _worked_out(self, files: Mapping[str, Path]) -> Baseline:
        with tempfile.TemporaryDirectory(prefix="remint-photos-") as folder:
            for name, path in files.items():
                if "/" not in name:
                    Path(folder, name).symlink_to(path)
            rows = manifest.read(Path(folder)).to_pylist()
            compared = [row for tiles in _comparable(rows).values() for row in tiles]
            counts = measure.histograms([row["brightness"] for row in compared], [row["contrast"] for row in compared])
            held_out = Samples(folder, "val")
            numbers = {key: i for i, key in enumerate(held_out.keys)}
            seen: list[float] = []
            for tiles in _comparable(held_out.rows).values():
                chosen = [held_out.image(numbers[row["key"]]) for row in tiles[:LOOKED_AT]]
                seen.append(float(np.mean(self.look(np.stack(chosen)))))
            return Baseline(counts, seen)


def find(settings: Settings) -> Production | None:
    """The depth models in production; None before the first release."""
    store = bucket.at(settings.production)
    pointer = pointers.newest(store, FAMILY)
    if pointer is None:
        return None
    students = [one.name for one in families.models_of(settings.root) if one.path.is_relative_to(STUDENTS)]
    found = [member for member in pointer.members if member.model in students]
    return Production(settings, store, pointer, found[0]) if found else None


def _comparable(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By photograph, as many tiles as are cut of a new one, and as those are chosen: whole coarse scales first.

    A key is photograph-scale-row-column, with the larger scale number the coarser. Brightness and contrast of tiles
    depend on their scale, so that only like may be compared with like.
    """
    photographs: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        photographs.setdefault(row["key"].split("-", 1)[0], []).append(row)
    chosen = {}
    for photo, tiles in photographs.items():
        order = np.random.default_rng(int(photo, 16)).permutation(len(tiles))
        mixed = [tiles[i] for i in order]
        chosen[photo] = sorted(mixed, key=lambda row: row["key"].split("-")[1], reverse=True)[: measure.TILES]
    return chosen


def _photos(text: str) -> str:
    """The digest that a dvc.lock records for the photographs."""
    for stage in lock_in(text.encode()).values():
        for out in stage.get("outs", []):
            if out["path"] == PHOTOS:
                return str(out["md5"])
    raise UserError(f"the dvc.lock of the release does not name {PHOTOS}; git fetch --tags, then again")
