"""What machines tell each other through git's origin: a run's commit before its stages, its tags at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data.core.params import UserError
from flows import repository
from flows.pipeline import run_tags
from flows.release import tags
from flows.repository import ORIGIN
from flows.settings import Settings
from flows.storage.retry import retry

if TYPE_CHECKING:
    from flows.release.promote import FamilyOutcome

RETRY_SECONDS = 60.0


def branch_of(run: str) -> str:
    """The branch that holds a run's commit while its stages run on workers."""
    return f"remint/{run}"


def fetch_tags(root: Path) -> None:
    """Know every run and release of every machine; UserError if origin is not there or a tag was moved."""
    if ORIGIN not in repository.git(root, "remote").split():
        raise UserError(
            f"{root} has no remote '{ORIGIN}', and workers fetch a run's commit from there; "
            f"git remote add {ORIGIN} ADDRESS, or REMINT_STAGES=here"
        )
    repository.git(root, "fetch", "--quiet", "--no-auto-gc", "--no-prune", ORIGIN, "refs/tags/*:refs/tags/*")


def newest(settings: Settings) -> str | None:
    """The newest commit of the branch that schedules follow; None where they follow HEAD."""
    if not settings.branch:
        return None
    known = f"refs/remotes/{ORIGIN}/{settings.branch}"
    what = f"+refs/heads/{settings.branch}:{known}"
    try:
        retry(
            repository.git,
            settings.root,
            "fetch",
            "--quiet",
            "--no-auto-gc",
            "--no-prune",
            ORIGIN,
            what,
            seconds=RETRY_SECONDS,
        )
    except UserError as error:
        raise UserError(f"REMINT_BRANCH={settings.branch} cannot be fetched from {ORIGIN}: {error}") from None
    return repository.git(settings.root, "rev-parse", "--verify", f"{known}^{{commit}}")


def offer(root: Path, run: str, commit: str) -> None:
    """Push a run's commit for the workers; UserError if that is not allowed."""
    try:
        _push(root, f"{commit}:refs/heads/{branch_of(run)}")
    except UserError as error:
        raise UserError(
            f"the commit of the run cannot be pushed, and workers fetch it from {ORIGIN}: {error}; "
            "ask for the right to push, or REMINT_STAGES=here"
        ) from None


def withdraw(root: Path, run: str) -> None:
    """Delete the branch of a run; none there is fine."""
    repository.git(root, "push", "--quiet", ORIGIN, "--delete", f"refs/heads/{branch_of(run)}", check=False)


def publish(root: Path, commit: str) -> None:
    """Push the tags of a run's commit and of the commits that hold what is in production, as far as origin lacks them.

    A released version may be of an earlier run. Other tags are the user's own, or those of runs that were never meant
    for other machines.
    """
    shown = repository.git(root, "ls-remote", "--tags", ORIGIN)
    there = {line.partition("refs/tags/")[2] for line in shown.splitlines()}
    theirs = {f"run/{identifier}" for identifier in run_tags.commits(root)}
    known = {name: at for name, at in tags.read(root).items() if name in theirs or "@v" in name or "#" in name}
    commits = {commit, *(at for name, at in known.items() if "#" in name)}
    ours = {name for name, at in known.items() if at in commits}
    if lacking := sorted(ours - there):
        retry(_push, root, *(f"refs/tags/{name}" for name in lacking), seconds=RETRY_SECONDS)


def follow(settings: Settings, outcome: FamilyOutcome) -> None:
    """Push the tags of a promotion or rollback that a person made, where other machines look for them."""
    if settings.stages == "workers" and outcome.release is not None:
        publish(settings.root, outcome.release.commit)


def _push(root: Path, *what: str) -> None:
    repository.git(root, "push", "--quiet", "--atomic", "--no-verify", ORIGIN, *what)
