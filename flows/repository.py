"""The git repository that a run starts from: what HEAD is, what is not committed, which run was last.

What is read from it and written to it depends on no person's configuration: files go in and out byte for byte, by
plumbing commands, past all attributes and filters, and what changes other commands' doings or words is set aside.
"""

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data.core.params import UserError
from flows.foreign import is_foreign

ORIGIN = "origin"  # the remote by which machines tell each other of commits and tags
PLAIN = {  # settings that would change what git does here, or how it says it
    "core.hooksPath": "/dev/null",  # a run's commits are made by a program; DVC's post-checkout hook fetches outputs
    "core.fsmonitor": "false",  # a program, or a daemon in each run's worktree
    "core.sparseCheckout": "false",
    "index.sparse": "false",
    "core.useReplaceRefs": "false",  # other objects under the names of a commit's own
    "core.quotePath": "false",
    "color.ui": "false",
    "column.ui": "never",
    "log.showSignature": "false",
    "i18n.commitEncoding": "UTF-8",
    "i18n.logOutputEncoding": "UTF-8",
    "trailer.separators": ":",  # by which a run's commit says where it ran
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "tag.forceSignAnnotated": "false",
    "push.gpgSign": "false",
    "push.followTags": "false",  # other tags are the user's own
    "submodule.recurse": "false",
}


@dataclass(frozen=True)
class Checkout:
    """Where the user stands: `top` may be a linked worktree, `main` is the checkout that owns `.git`."""

    top: Path
    main: Path
    head: str  # 40 hex digits
    uncommitted: tuple[str, ...]  # paths changed against HEAD or not tracked, ignored ones left out


def git(root: Path, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
    """Run git in `root` and return what it printed; UserError with git's own words when it fails."""
    done = _run(root, *arguments, stdin=stdin)
    if check and done.returncode != 0:
        words = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise UserError(f"git {arguments[0]} failed in {root}: {words}")
    return done.stdout.rstrip("\n")


@dataclass(frozen=True)
class _Objects:
    """git's objects by name, read by one process."""

    process: subprocess.Popen[bytes]

    def read(self, name: str) -> bytes:
        """The bytes of a file; UserError where the repository lacks them."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(name.encode("utf-8", "surrogateescape") + b"\n")
        self.process.stdin.flush()
        head = _text(self.process.stdout.readline()).split()
        if len(head) != 3 or head[1] != "blob":
            raise UserError(f"{name} is no file of this repository, or not in this clone of it; git fetch, or git fsck")
        data = self.process.stdout.read(int(head[2]))
        self.process.stdout.read(1)  # the end of a line
        return data


@contextmanager
def _objects(root: Path) -> Iterator[_Objects]:
    with _started(root, ("cat-file", "--batch"), subprocess.PIPE, subprocess.DEVNULL) as process:
        yield _Objects(process)


@contextmanager
def _started(
    root: Path, arguments: Sequence[str], stdin: int, stderr: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    plain = [word for key, value in PLAIN.items() for word in ("-c", f"{key}={value}")]
    environment = {key: value for key, value in os.environ.items() if not is_foreign(key)}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}  # nobody is there to type a password
    command = ["git", "-C", str(root), *plain, *arguments]
    try:
        process = subprocess.Popen(command, env=environment, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr)
    except FileNotFoundError:
        raise UserError("git is not installed, and a run needs it; on Debian: apt-get install git") from None
    with process:
        yield process


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _executable(path: str, flags: int) -> int:
    return os.open(path, flags, 0o777)


def _run(root: Path, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    given = None if stdin is None else stdin.encode("utf-8", "surrogateescape")
    with _started(root, arguments, subprocess.DEVNULL if given is None else subprocess.PIPE) as process:
        out, err = process.communicate(given)
    return subprocess.CompletedProcess(arguments, process.returncode, _text(out), _text(err))


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
            raise UserError(f"commit {head[:7]} of {root} has no {needed}, so there is no graph to run; commit one")
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


def file_at(root: Path, commit: str, path: str) -> str | None:
    """The text of a file in a commit, None if the commit does not have it."""
    if not git(root, "ls-tree", "--name-only", commit, path):
        return None
    with _objects(root) as objects:
        return _text(objects.read(f"{commit}:{path}"))


def write_tree(root: Path, commit: str) -> None:
    """Write the files of a commit into the empty checkout `root`, with the commit's bytes; submodules stay empty."""
    git(root, "read-tree", commit)  # it refuses names that lead out of the checkout
    listed = git(root, "ls-files", "--stage", "-z").split("\0")
    with _objects(root) as objects:
        for entry in sorted(filter(None, listed)):  # 100644, 100755, then links, so that nothing is written through one
            (mode, oid, _), path = entry.partition("\t")[0].split(), root / entry.partition("\t")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            if mode == "160000":
                path.mkdir()
            elif mode == "120000":
                os.symlink(objects.read(oid), os.fsencode(path))  # noqa: PTH211 - its target need not be Unicode
            else:
                with open(path, "xb", opener=_executable if mode == "100755" else None) as file:
                    file.write(objects.read(oid))


def digest_at(root: Path, commit: str, path: str, algorithm: str = "sha256") -> str | None:
    """The digest of a file's bytes in a commit, None if this clone does not have them."""
    if git(root, "cat-file", "-t", f"{commit}:{path}", check=False) != "blob":
        return None
    with _objects(root) as objects:
        return hashlib.new(algorithm, objects.read(f"{commit}:{path}"), usedforsecurity=False).hexdigest()


def commit(root: Path, message: str, paths: Sequence[str], *, allow_empty: bool = False) -> str:
    """Commit the files `paths` in the checkout `root`, with the bytes that they have, and return the commit's hash."""
    head = git(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    git(root, "read-tree", "HEAD" if head else "--empty")  # nothing else that was staged, as by DVC's autostage
    oids = git(root, "hash-object", "-w", "--no-filters", "--stdin-paths", stdin="".join(f"{p}\n" for p in paths))
    entries = "".join(f"100644 {oid}\t{path}\0" for oid, path in zip(oids.split(), paths, strict=True))
    git(root, "update-index", "--add", "-z", "--index-info", stdin=entries)
    tree = git(root, "write-tree")
    if not allow_empty and head and tree == git(root, "rev-parse", "HEAD^{tree}"):
        raise UserError(f"nothing to commit in {root}: {', '.join(paths)} did not change")
    parent = ("-p", head) if head else ()
    made = git(root, *_somebody(root), "commit-tree", tree, *parent, "-F", "-", stdin=f"{message.rstrip()}\n")
    git(root, "update-ref", "-m", f"commit: {message.splitlines()[0]}", "HEAD", made)
    return made


def tag(root: Path, name: str, message: str, commit: str) -> None:
    """Put an annotated tag on a commit; UserError if there is one of that name: nothing here ever moves a tag."""
    kind = ("--annotate", "--cleanup=whitespace")
    git(root, *_somebody(root), "tag", *kind, "-m", message, name, commit)


def _somebody(root: Path) -> list[str]:
    """Options that name an author on a machine where git has not been told one."""
    named = {"user.name": "remint", "user.email": "remint@localhost"}
    missing = [key for key in named if not git(root, "config", key, check=False)]
    return [word for key in missing for word in ("-c", f"{key}={named[key]}")]
