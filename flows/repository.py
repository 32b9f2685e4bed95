"""The git repository that a run starts from: what HEAD is, what is not committed, which run was last."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.params import UserError

FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set inside a git hook, and meant for another repository


@dataclass(frozen=True)
class Checkout:
    """Where the user stands: `top` may be a linked worktree, `main` is the checkout that owns `.git`."""

    top: Path
    main: Path
    head: str  # 40 hex digits
    uncommitted: tuple[str, ...]  # paths changed against HEAD or not tracked, ignored ones left out


def git(root: Path, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
    """Run git in `root` and return what it printed; UserError with git's own words when it fails.

    Hooks are off: a run's commits are made by a program, and DVC's post-checkout hook would fetch outputs into
    a worktree before its cache is known.
    """
    done = _run(root, *arguments, stdin=stdin)
    if check and done.returncode != 0:
        words = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise UserError(f"git {arguments[0]} failed in {root}: {words}")
    return done.stdout.rstrip("\n")


def _run(root: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(root), "-c", "core.hooksPath=/dev/null", *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}  # nobody is there to type a password
    try:
        return subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",  # a file's name may be any bytes
            check=False,
            env=environment,
            input=stdin,
        )
    except FileNotFoundError:
        raise UserError("git is not installed, and a run needs it; on Debian: apt-get install git") from None


def find(start: Path) -> Checkout:
    """The checkout around `start`; UserError where there is no repository, no commit or no graph."""
    top = _run(start, "rev-parse", "--show-toplevel")
    if top.returncode != 0:
        raise UserError(_why_none(start, top.stderr))
    root = Path(top.stdout.rstrip("\n"))
    if elsewhere := git(root, "config", "core.worktree", check=False):
        raise UserError(
            f"{root} is a submodule of another repository (its core.worktree is {elsewhere}), and DVC cannot open the "
            f"worktrees of one; clone it by itself: git clone {shlex.quote(str(root))} FOLDER"
        )
    head = git(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    if not head:
        raise UserError(f"{root} has no commit yet, and a run works from one: git add -A && git commit -m 'Start'")
    for needed in ("dvc.yaml", "params.yaml", ".dvc"):
        if not git(root, "ls-tree", "--name-only", "HEAD", needed):
            raise UserError(f"commit {head[:7]} of {root} has no {needed}, so there is no graph to run")
    common = Path(git(root, "rev-parse", "--path-format=absolute", "--git-common-dir"))
    changed = git(root, "status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=normal")
    return Checkout(
        top=root,
        main=common.parent if common.name == ".git" else root,
        head=head,
        uncommitted=tuple(entry[3:] for entry in changed.split("\0") if entry),
    )


def _why_none(start: Path, said: str) -> str:
    """Why git finds no checkout around a folder, in its own words, and what helps."""
    words = (said.strip() or "git says nothing").splitlines()[0].removeprefix("fatal: ")
    if "(or any" in words:
        return (
            f"{start} is not in a git repository, and a run works from a commit; "
            "clone the project, or: git init && git add -A && git commit -m 'Start'"
        )
    advice = ""
    if "dubious ownership" in words:
        owned = re.search(r"'(.*)'", words)
        folder = shlex.quote(owned[1] if owned else str(start))
        advice = (
            "; it belongs to another user: work in a clone of your own, or, if you trust whoever can write there, "
            f"git config --global --add safe.directory {folder}"
        )
    elif "work tree" in words:
        advice = f"; a bare repository has no files to work with: git clone {shlex.quote(str(start))} FOLDER"
    return f"git does not work in {start}: {words}{advice}"


def newest_run(root: Path) -> str | None:
    """The tag of the run that was finished last, if there was one."""
    return (
        git(root, "for-each-ref", "--sort=-refname", "--count=1", "--format=%(refname:short)", "refs/tags/run/") or None
    )


def file_at(root: Path, commit: str, path: str) -> str | None:
    """The text of a file in a commit, None if the commit does not have it."""
    if not git(root, "ls-tree", "--name-only", commit, path):
        return None
    return git(root, "show", f"{commit}:{path}") + "\n"


def commit(root: Path, message: str, paths: Sequence[str], *, allow_empty: bool = False) -> str:
    """Commit `paths` in the checkout `root` and return the new commit's hash."""
    git(root, "add", "--force", "--", *paths)
    empty = ("--allow-empty",) if allow_empty else ()
    plain = ("-c", "commit.gpgsign=false", *_somebody(root))
    git(root, *plain, "commit", "--quiet", "--no-verify", *empty, "-m", message)
    return git(root, "rev-parse", "HEAD")


def tag(root: Path, name: str, message: str, commit: str, *, force: bool = False) -> None:
    """Put an annotated tag on a commit; UserError if there is one of that name, unless it is to be moved."""
    kind = ("--annotate", *(("--force",) if force else ()))
    git(root, "-c", "tag.gpgsign=false", *_somebody(root), "tag", *kind, "-m", message, name, commit)


def _somebody(root: Path) -> list[str]:
    """Options that name an author on a machine where git has not been told one."""
    named = {"user.name": "remint", "user.email": "remint@localhost"}
    missing = [key for key in named if not git(root, "config", key, check=False)]
    return [word for key in missing for word in ("-c", f"{key}={named[key]}")]
