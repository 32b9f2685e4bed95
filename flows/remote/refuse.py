"""What a worker does not run, and why: commits that nobody allowed, other packages, another class of machine.

    refuse.commit(root, "1a2b...", "main,remint/*")     # and it is here afterwards, fetched from origin
    refuse.environment(work, environment.describe(worktree))
    refuse.stage(work, known)
    refuse.flow_run(flow_run, deployment, {"nightly": "flows.schedules.deployed.retraining"})

Each raises Refused, whose words say why and what to do. Names and commits come from the ledger: they reach git as
arguments only, checked before, and nothing of them is ever given to a shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from data.core.params import near
from flows import repository
from flows.pipeline.environment import Environment
from flows.remote.ledger import Work

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun
    from prefect.client.schemas.responses import DeploymentResponse

COMMIT = re.compile(r"[0-9a-f]{40}")
SHOWN = 3  # packages that are named
BATCH = 200  # references that are fetched with one command: its line has an end


class Refused(Exception):
    """The worker may not or cannot run this; the message is one line."""


def commit(root: Path, wanted: str, allowed: str) -> None:
    """Have a commit here that is reachable from a branch or tag of origin that matches REMINT_ALLOWED.

    Origin is asked each time: what it no longer has is no longer allowed. UserError if it does not answer.
    """
    if not COMMIT.fullmatch(wanted):
        raise Refused(f"'{wanted[:60]}' is not a commit: 40 hex digits")
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
        raise Refused(
            f"commit {wanted[:10]} is not in origin, neither as nor behind a branch or tag that REMINT_ALLOWED "
            f"({allowed}) names; push it there"
        )
    if _outside(root, wanted, tips.values()):
        raise Refused(
            f"commit {wanted[:10]} is not reachable from a branch or tag of origin that REMINT_ALLOWED ({allowed}) "
            "names; merge it, or allow its branch"
        )


def stage(work: Work, known: Iterable[str]) -> None:
    """The stage must be one of dvc.yaml at the commit, by exactly this name."""
    names = list(known)
    if work.stage not in names:
        said = near(work.stage, names)
        raise Refused(f"dvc.yaml of commit {work.commit[:10]} has no stage '{work.stage[:80]}'{said}")


def environment(work: Work, here: Environment) -> None:
    """The packages must be those of the commit's requirements.lock, and the machine of the class the run allows.

    here: this process's environment, described with the commit's checkout.
    """
    wanted = work.environment
    if wanted.get("lock") not in (None, here.lock):
        raise Refused(
            f"the run was started with another requirements.lock ({str(wanted['lock'])[:10]}) than its commit has "
            f"({here.lock[:10] or 'none'}); commit the lock file"
        )
    if here.unlocked:
        named = [f"{name} {version}" for name, version in here.unlocked.items()]
        rest = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        raise Refused(
            f"this worker's packages are not those of requirements.lock: {', '.join(named[:SHOWN])}{rest}; "
            "pip install -r requirements.lock, and start the worker again"
        )
    if wanted.get("machine") not in (None, "", here.machine):
        raise Refused(
            f"this machine is of class '{here.machine}', the run allows '{wanted['machine']}', and other machines "
            "give other bytes; start a worker on one of that class"
        )


def flow_run(asked: FlowRun, deployment: DeploymentResponse | None, declared: Mapping[str, str]) -> str:
    """The entry point of a flow run: that of its deployment in this clone's infra/prefect.yaml, by name, in `declared`.

    Whoever has a login of Prefect's server may write there what he wants: another entry point, a command, variables,
    steps before the flow. None of them is run here.
    """
    if deployment is None:
        raise Refused("it belongs to no deployment, and workers run what infra/prefect.yaml declares")
    title = f"deployment '{deployment.name[:80]}'"
    if deployment.name not in declared:
        raise Refused(f"{title} is not in this worker's infra/prefect.yaml{near(deployment.name, declared)}")
    entrypoint = declared[deployment.name]
    if deployment.entrypoint != entrypoint:
        raise Refused(
            f"{title} has entry point '{str(deployment.entrypoint)[:80]}', declared is {entrypoint}; remint deploy"
        )
    if deployment.pull_steps:
        raise Refused(f"{title} has pull steps, and workers run none; remint deploy")
    no_variables(asked.job_variables, "the flow run")
    no_variables(deployment.job_variables, title)
    return entrypoint


def no_variables(given: Mapping[str, object] | None, of: str) -> None:
    """Commands, variables and folders are the worker's own affair."""
    if given:
        names = ", ".join(sorted(given))[:80]
        raise Refused(f"{of} sets job variables ({names}), and workers let nobody set any; start it without them")


def _tips(root: Path, patterns: list[str]) -> dict[str, str]:
    """Commit by full reference name, of origin's branches and tags that match one of the patterns."""
    tips = {}
    for line in repository.git(root, "ls-remote", "--heads", "--tags", "origin").splitlines():
        oid, _, name = line.partition("\t")
        name = name.removesuffix("^{}")  # of an annotated tag two lines come: the tag's own first, then its commit
        short = re.sub(r"^refs/(heads|tags)/", "", name)
        if any(fnmatchcase(short, pattern) for pattern in patterns):
            tips[name] = oid
    return tips


def _fetch(root: Path, names: list[str]) -> None:
    repository.git(
        root, "fetch", "--quiet", "--no-tags", "--no-auto-gc", "--no-prune", "--no-write-fetch-head", "origin", *names
    )


def _there(root: Path, oid: str) -> bool:
    found = repository.git(root, "rev-parse", "--quiet", "--verify", f"{oid}^{{commit}}", check=False)
    return found == oid


def _outside(root: Path, oid: str, tips: Iterable[str]) -> bool:
    """Whether a commit is reachable from none of the tips."""
    known = [tip for tip in tips if _there(root, tip)]
    given = "\n".join([oid, *(f"^{tip}" for tip in known)]) + "\n"
    return bool(repository.git(root, "rev-list", "--max-count=1", "--stdin", stdin=given))
