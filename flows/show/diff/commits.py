"""The commits of two runs compared: parameters and code that differ, and figures from DVC's cache or remote."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.core.params import UserError
from flows import repository
from flows.pipeline.parameters import earlier
from flows.show.diff.comparison import Commit, File, Parameter, Step
from flows.show.lineage.down import Code
from models.report.collect import Picture, picture
from models.report.words import ASIDE, caption
from models.tracking.names import flatten

PATHS = ("data", "models", "dvc.yaml")  # what can change a result; orchestration cannot
ABSENT = object()


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


def parameters(root: Path, before: str, after: str, used: Mapping[str, Collection[str]]) -> tuple[Parameter, ...]:
    """The entries of params.yaml that differ between two commits; those that reach a model come first.

    used: model -> the parameters that its stages name, as "generator.maskgit" for all below it.
    """
    old, new = (flatten(earlier(root, commit)) for commit in (before, after))
    changed = [n for n in dict.fromkeys([*old, *new]) if old.get(n, ABSENT) != new.get(n, ABSENT)]
    found = [Parameter(name, old.get(name), new.get(name), _reached(name, used)) for name in changed]
    return tuple(sorted(found, key=lambda one: not one.models))


def between(root: Path, before: str, after: str) -> Step:
    """Commits and files that differ between two commits, in what can change a result."""
    numbers = repository.git(
        root, "diff-tree", "-r", "--numstat", "--no-renames", before, after, "--", *PATHS
    ).splitlines()
    return Step(
        gained=_commits(root, before, after),
        lost=_commits(root, after, before),
        files=tuple(_file(*line.split("\t", 2)) for line in numbers),
    )


def missing(root: Path, commit: str) -> str:
    """What to say where a commit is not in this repository, "" where it is."""
    return "" if Code(root, commit).there else f"commit {commit[:12]} is not in {root}: git fetch --tags"


def _commits(root: Path, without: str, tip: str) -> tuple[Commit, ...]:
    """Commits of `tip` that `without` does not have, the newest first."""
    lines = repository.git(root, "log", "--format=%H%x09%s", f"{without}..{tip}", "--", *PATHS).splitlines()
    return tuple(Commit(*line.split("\t", 1)) for line in lines)


def _file(added: str, removed: str, path: str) -> File:
    binary = added == "-"
    return File(path, None if binary else int(added), None if binary else int(removed))


def _reached(name: str, used: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """The models whose stages read a parameter."""

    def reads(sections: Collection[str]) -> bool:
        return any(name == section or name.startswith(f"{section}.") for section in sections)

    return tuple(model for model, sections in used.items() if reads(sections))


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
