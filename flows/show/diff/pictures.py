"""The figures of two evaluations, each with its counterpart; from DVC's cache, or the remote where that lacks them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.core.params import UserError
from models.report.collect import Picture, picture
from models.report.words import ASIDE, caption


@dataclass(frozen=True)
class Pair:
    """One figure of both releases; None where one does not have it."""

    evaluation: str
    name: str
    caption: str
    before: Picture | None
    after: Picture | None

    @property
    def same(self) -> bool:
        return self.before is not None and self.before == self.after


def pairs(root: Path, before: str, after: str, evaluations: Sequence[str]) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """The figures of these evaluations at two commits, and what to say where there are none to be had."""
    notes: list[str] = []
    old, new = (_all(root, commit, evaluations, notes) for commit in (before, after))
    found = [
        Pair(name, figure, caption(f"evaluate@{name}", figure), old[name].get(figure), new[name].get(figure))
        for name in evaluations
        for figure in sorted({*old[name], *new[name]}, key=lambda figure: (figure in ASIDE, figure))
    ]
    return tuple(found), tuple(notes)


def _all(root: Path, commit: str, evaluations: Sequence[str], notes: list[str]) -> dict[str, dict[str, Picture]]:
    """Each evaluation's pictures at a commit; `notes` is told what could not be had."""
    from dvc.api import DVCFileSystem

    logging.getLogger("dvc").setLevel(logging.ERROR)
    found: dict[str, dict[str, Picture]] = {name: {} for name in evaluations}
    try:
        with _reasons():
            store = DVCFileSystem(str(root), rev=commit)
    except LookupError as error:
        notes.append(f"no pictures at {commit[:12]}: {error}")
        return found
    for name in evaluations:
        try:
            with _reasons():
                found[name] = _figures(store, name)
        except (LookupError, UserError) as error:
            notes.append(f"no pictures of {name} at {commit[:12]}: {error}")
    return found


def _figures(store: Any, evaluation: str) -> dict[str, Picture]:
    folder = f"artifacts/evaluate/{evaluation}/figures"
    names = [path for path in sorted(store.find(folder, detail=False)) if path.endswith(".png")]
    with tempfile.TemporaryDirectory() as scratch:
        for path in names:
            store.get_file(path, str(Path(scratch) / Path(path).name))
        return {Path(path).stem: picture(Path(scratch) / Path(path).name) for path in names}


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever DVC raises becomes a LookupError with the reason in a line."""
    from dvc.exceptions import DvcException

    try:
        yield
    except (DvcException, OSError, LookupError) as error:
        raise LookupError(_why(error)) from None
    except Exception as error:
        # DataIndexDirError and RevError descend from Exception alone, in modules that DVC keeps to itself
        if type(error).__module__.partition(".")[0] not in ("dvc", "dvc_data", "dvc_objects", "scmrepo"):
            raise
        raise LookupError(_why(error)) from None


def _why(error: Exception) -> str:
    """A store's error in a line."""
    if isinstance(error, FileNotFoundError) or "DataIndex" in type(error).__name__:
        return "neither DVC's cache nor its remote has them (dvc fetch, where another machine does)"
    return (str(error) or type(error).__name__).splitlines()[0]
