"""Tags below `run/` by their form alone: which of them name runs; `flows.catalogue.known_runs` says which are known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from flows import repository
from flows.pipeline.run import run_tag

FORM = re.compile(r"run/(\d{8}T\d{6}Z-([0-9a-f]{7}))")  # start, and the commit that was HEAD


def commits(root: Path) -> dict[str, str]:
    """The commit of each run by its id, as far as annotated tags of the exact form say."""
    return {name.removeprefix(run_tag("")): commit for name, commit, wrong in _tags(root) if not wrong}


def strangers(root: Path) -> dict[str, str]:
    """The other tags below `run/`, each with what is wrong with it."""
    return {name: wrong for name, _, wrong in _tags(root) if wrong}


def _tags(root: Path) -> Iterator[tuple[str, str, str]]:
    """(name, commit, what is wrong) of every tag below `run/`."""
    form = "--format=%(refname:strip=2)%00%(objecttype)%00%(*objecttype)%00%(*objectname)"
    for line in repository.git(root, "for-each-ref", form, "refs/tags/run/").splitlines():
        name, kind, of, commit = line.split("\0")
        if not FORM.fullmatch(name):
            yield name, "", "no run's name, which is run/<time>-<commit>"
        elif kind != "tag":
            yield name, "", "not annotated, as a run's is"
        elif of != "commit":
            yield name, "", f"the tag of a {of}, not of a commit"
        else:
            yield name, commit, ""
