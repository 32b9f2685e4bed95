"""Which tags below `run/` are runs: those of the exact form that this machine, its catalogue or DVC's run cache know.

Whoever can push a tag can write what they like into its `dvc.lock`. What a plan starts from, and what is promoted, is
therefore a run that was noted here or is in the catalogue, with the very commit that it has there. In a clone, which
has neither, the commit must be as a run records it, and the run cache must know each of its results.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from data.core.params import UserError
from flows import repository
from flows.pipeline import accepted, run_record, workspace
from flows.pipeline.accepted import Accepted
from flows.pipeline.run import RECORDED, SET, run_tag
from flows.pipeline.run_tags import commits
from flows.settings import Settings
from models.tracking.embedded import database_file

VERIFIED = 20  # of the runs of which nothing but the tag is known, the newest are looked at


def newest(settings: Settings) -> str | None:
    """The tag of the newest run that counts, if there is one."""
    runs, unknown = Runs(settings), 0
    for identifier, commit in sorted(commits(settings.root).items(), reverse=True):
        known = runs.known(identifier)
        unknown += known is None
        if known == commit or (known is None and unknown <= VERIFIED and not runs.doubt(identifier, commit)):
            return run_tag(identifier)
    return None


@dataclass(frozen=True)
class Runs:
    """What is known of the runs that tags name."""

    settings: Settings

    def known(self, identifier: str) -> str | None:
        """The commit with which a run was noted here or is in the catalogue; None where it is in neither."""
        noted = run_record.load(self.settings, identifier)
        return noted.run.commit if noted else self._catalogue.get(identifier)

    def doubt(self, identifier: str, commit: str) -> str:
        """Why a run of which only the tag is known is not believed, "" where all of it is as a run leaves it."""
        return next(itertools.chain(self.malformed(identifier, commit), self._unheard_of(commit)), "")

    def malformed(self, identifier: str, commit: str) -> Iterator[str]:
        """What in a run's commit is otherwise than a run makes it, by git alone."""
        root = self.settings.root
        parent, subject = _about(root, commit)
        if subject != f"{RECORDED} {identifier}":
            yield f"its commit {commit[:12]} is not the record of that run"
            return
        before, words = _about(root, parent)
        base = before if words == f"{SET} {identifier}" else parent
        if not base.startswith(identifier.rpartition("-")[2]):
            yield f"its commit {commit[:12]} does not follow the one that its name says"
            return
        try:
            lock = self._lock(commit)
            outs = {out["path"]: out["md5"] for entry in lock.values() for out in entry.get("outs", [])}
            several = {stage.partition("@")[0] for stage in lock if "@" in stage}
            left = {
                name
                for name, stage in self._graph(commit).items()
                if not isinstance(stage.get("foreach"), str)  # of parameters, which may name none
                and name not in (several if {"foreach", "matrix"} & stage.keys() else lock)
            }
        except (ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
            yield f"commit {commit[:12]} has no dvc.lock as DVC writes it"
            return
        if left:
            yield f"the dvc.lock of its commit {commit[:12]} has no {', '.join(sorted(left))}"
        changed = repository.git(root, "diff-tree", "--no-commit-id", "--name-only", "-r", "-z", parent, commit)
        for path in filter(None, changed.split("\0")):
            if path != "dvc.lock" and repository.digest_at(root, commit, path, "md5") != outs.get(path, ""):
                yield f"its commit {commit[:12]} changes {path}, which is no result of its dvc.lock"

    def _unheard_of(self, commit: str) -> Iterator[str]:
        """The stages of a commit's dvc.lock whose results the run cache does not know."""
        cache = Accepted(workspace.cache(self.settings) / "runs", accepted.remote(self.settings))
        for stage, entry in self._lock(commit).items():
            if not cache.knows(entry):
                yield f"nothing here knows that {stage} gave what its dvc.lock says"

    def _lock(self, commit: str) -> Mapping[str, Any]:
        text = repository.file_at(self.settings.root, commit, "dvc.lock")
        return dict(accepted.parse((text or "").encode())["stages"])

    def _graph(self, commit: str) -> Mapping[str, Any]:
        text = repository.file_at(self.settings.root, commit, "dvc.yaml")
        return dict(yaml.safe_load(text or "")["stages"])

    @cached_property
    def _catalogue(self) -> Mapping[str, str]:
        """The catalogue's runs; a catalogue that is not there, or does not answer, knows none."""
        from sqlalchemy import select

        from flows.catalogue import database
        from flows.catalogue.schema import Run

        file = database_file(self.settings.catalogue)
        if file is not None and not file.exists():
            return {}
        with contextlib.suppress(UserError), database.open(self.settings).read() as session:
            return dict(session.execute(select(Run.id, Run.commit).where(Run.state == "done")).tuples().all())
        return {}


def _about(root: Path, commit: str) -> tuple[str, str]:
    """The only parent of a commit, "" if it has none or several, and the first line of its message.

    Nothing of one that is not here, as in a shallow clone.
    """
    said = repository.git(root, "log", "-1", "--format=%P%x00%s", commit, check=False) if commit else ""
    parents, _, subject = said.partition("\0")
    return ("" if " " in parents else parents), subject
