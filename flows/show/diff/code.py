"""What git knows of two runs: the parameters that differ, and the code between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flows import repository
from flows.pipeline.parameters import earlier
from flows.show.diff.values import Code, Commit, File, Parameter
from models.tracking.training_run import flatten

PATHS = ("data", "models", "dvc.yaml")  # what can change a result; orchestration cannot
ABSENT = object()


def parameters(root: Path, before: str, after: str, used: Mapping[str, Collection[str]]) -> tuple[Parameter, ...]:
    """The entries of params.yaml that differ between two commits; those that reach a model come first.

    used: model -> the parameters that its stages name, as "generator.maskgit" for all below it.
    """
    old, new = (flatten(earlier(root, commit)) for commit in (before, after))
    changed = [n for n in dict.fromkeys([*old, *new]) if old.get(n, ABSENT) != new.get(n, ABSENT)]
    found = [Parameter(name, old.get(name), new.get(name), _reached(name, used)) for name in changed]
    return tuple(sorted(found, key=lambda one: not one.models))


def between(root: Path, before: str, after: str) -> Code:
    """Commits and files that differ between two commits, in what can change a result."""
    numbers = repository.git(
        root, "diff-tree", "-r", "--numstat", "--no-renames", before, after, "--", *PATHS
    ).splitlines()
    return Code(
        gained=_commits(root, before, after),
        lost=_commits(root, after, before),
        files=tuple(_file(*line.split("\t", 2)) for line in numbers),
    )


def missing(root: Path, commit: str) -> str:
    """What to say where a commit is not in this repository, "" where it is."""
    found = repository.git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", check=False)
    return "" if found else f"commit {commit[:12]} is not in {root}: git fetch --tags"


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


def plain(value: Any) -> str:
    """A parameter's value as text; an absent one is a dash."""
    return "-" if value is None else str(value)
