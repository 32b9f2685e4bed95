"""The admission check: commits that nobody allowed, other packages, another class of machine are not run.

    admission.order(wanted)                                # what it may hold
    admission.commit(root, "1a2b...", "main,remint/*")     # and it is here afterwards, fetched from origin
    admission.stage(wanted, known)
    admission.environment(wanted, environment.describe(worktree))

Each raises Rejected, whose words say why and what to do. Names and commits come from the bucket: they reach git as
arguments only, checked before, and nothing of them is ever given to a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from data.core import checkpoint_store
from data.core.params import near
from flows import repository
from flows.pipeline.environment import VARIABLES, Environment
from flows.workers.orders import Order

PART = re.compile(r"[1-9]\d{0,3}/[1-9]\d{0,3}")
VALUE = re.compile(r"[\w.,:+=-]{1,100}")  # of a variable that the order names
COMMIT = re.compile(r"[0-9a-f]{40}")
SHOWN = 3  # packages that are named
BATCH = 200  # references that are fetched with one command: its line has an end


class Rejected(Exception):
    """The worker may not or cannot run this; the message is one line."""


def order(wanted: Order) -> None:
    """What can be known before anything is fetched."""
    if wanted.part and not PART.fullmatch(wanted.part):
        raise Rejected(f"'{wanted.part[:20]}' is not a part, as 2/4 is one")
    if wanted.proof and not checkpoint_store.PLACE.fullmatch(wanted.proof):
        raise Rejected(f"'{wanted.proof[:80]}' is not the name of a reproduction")
    for name, value in (wanted.variables or {}).items():
        if name not in VARIABLES or not VALUE.fullmatch(value):
            raise Rejected(f"variable '{name[:80]}' is not to be set, or not to this value")


def commit(root: Path, wanted: str, allowed: str) -> None:
    """Have a commit here that is reachable from a branch or tag of origin that matches REMINT_ALLOWED.

    Origin is asked each time: what it no longer has is no longer allowed. UserError if it does not answer.
    """
    if not COMMIT.fullmatch(wanted):
        raise Rejected(f"'{wanted[:60]}' is not a commit: 40 hex digits")
    patterns = [pattern.strip() for pattern in allowed.split(",") if pattern.strip()]
    tips = _tips(root, patterns)
    tip = next((name for name, oid in tips.items() if oid == wanted), None)
    if tip is not None:  # as a rule: the branch that the run has just pushed
        if not _there(root, wanted):
            _fetch(root, [tip])
        return
    names = list(tips)
    if _there(root, wanted):
        names = [name for name in names if not _there(root, tips[name])]
    for start in range(0, len(names), BATCH):
        _fetch(root, names[start : start + BATCH])
    if not _there(root, wanted):
        raise Rejected(
            f"commit {wanted[:10]} is not in origin, neither as nor behind a branch or tag that REMINT_ALLOWED "
            f"({allowed}) names; push it there"
        )
    if _outside(root, wanted, tips.values()):
        raise Rejected(
            f"commit {wanted[:10]} is not reachable from a branch or tag of origin that REMINT_ALLOWED ({allowed}) "
            "names; merge it, or allow its branch"
        )


def stage(wanted: Order, known: Iterable[str]) -> None:
    """The stage must be one of dvc.yaml at the commit, by exactly this name."""
    names = list(known)
    if wanted.stage not in names:
        said = near(wanted.stage, names)
        raise Rejected(f"dvc.yaml of commit {wanted.commit[:10]} has no stage '{wanted.stage[:80]}'{said}")


def environment(order: Order, here: Environment) -> None:
    """The packages must be those of the commit's requirements.lock, and the machine of the class the run allows.

    here: this process's environment, described with the commit's checkout.
    """
    wanted = order.environment
    if wanted.get("lock") not in (None, here.lock):
        raise Rejected(
            f"the run was started with another requirements.lock ({str(wanted['lock'])[:10]}) than its commit has "
            f"({here.lock[:10] or 'none'}); commit the lock file"
        )
    if here.unlocked:
        named = [f"{name} {version}" for name, version in here.unlocked.items()]
        rest = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        raise Rejected(
            f"this worker's packages are not those of requirements.lock: {', '.join(named[:SHOWN])}{rest}; "
            "pip install -r requirements.lock, and start the worker again"
        )
    if wanted.get("machine") not in (None, "", here.machine):
        raise Rejected(
            f"this machine is of class '{here.machine}', the run allows '{wanted['machine']}', and other machines "
            "give other bytes; start a worker on one of that class"
        )


def _tips(root: Path, patterns: list[str]) -> dict[str, str]:
    """Commit by full reference name, of origin's branches and tags that match one of the patterns."""
    tips = {}
    for line in repository.git(root, "ls-remote", "--heads", "--tags", repository.ORIGIN).splitlines():
        oid, _, name = line.partition("\t")
        name = name.removesuffix("^{}")  # of an annotated tag two lines come: the tag's own first, then its commit
        short = re.sub(r"^refs/(heads|tags)/", "", name)
        if any(fnmatchcase(short, pattern) for pattern in patterns):
            tips[name] = oid
    return tips


def _fetch(root: Path, names: list[str]) -> None:
    repository.git(
        root,
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-auto-gc",
        "--no-prune",
        "--no-write-fetch-head",
        repository.ORIGIN,
        *names,
    )


def _there(root: Path, oid: str) -> bool:
    found = repository.git(root, "rev-parse", "--quiet", "--verify", f"{oid}^{{commit}}", check=False)
    return found == oid


def _outside(root: Path, oid: str, tips: Iterable[str]) -> bool:
    """Whether a commit is reachable from none of the tips."""
    known = [tip for tip in tips if _there(root, tip)]
    given = "\n".join([oid, *(f"^{tip}" for tip in known)]) + "\n"
    return bool(repository.git(root, "rev-list", "--max-count=1", "--stdin", stdin=given))
